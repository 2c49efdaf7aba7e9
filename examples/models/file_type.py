"""``magika``: Google's file-type model, as the PyPI package ``magika`` carries it.

The model reads 2,048 tokens: the first 1,024 bytes of a file without leading whitespace, and the
last 1,024 without trailing whitespace, each taken from a block of 4,096 bytes and padded with the
token 256. The sizes come from the package's own configuration, and ``expected`` gives the
package's own answer for the same bytes, so that the demo can prove the features right.
"""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import magika
import numpy as np
import numpy.typing as npt

NAME = "magika"

Tokens = npt.NDArray[np.int32]


@cache
def _package() -> magika.Magika:
    return magika.Magika()


def _source() -> Path:
    return Path(magika.__file__).parent / "models" / _package().get_model_name()


@cache
def _config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads((_source() / "config.min.json").read_text())
    if config["mid_size"] or config["use_inputs_at_offsets"]:
        raise SystemExit(f"{_source()} wants features that this example does not extract")
    return config


def features(content: bytes) -> Tokens:
    """The model's input for one file: ``int32 [2048]``."""
    config = _config()
    head = content[: config["block_size"]].lstrip()[: config["beg_size"]]
    tail = content[-config["block_size"] :].rstrip()[-config["end_size"] :]
    tokens = np.full(config["beg_size"] + config["end_size"], config["padding_token"], np.int32)
    tokens[: len(head)] = np.frombuffer(head, np.uint8)
    tokens[len(tokens) - len(tail) :] = np.frombuffer(tail, np.uint8)
    return tokens


def labels() -> list[str]:
    """The content type of each index of the model's output."""
    return list(_config()["target_labels_space"])


def expected(content: bytes) -> tuple[str, float]:
    """The package's own raw answer for the same bytes: content type and score."""
    prediction = _package().identify_bytes(content).prediction
    return str(prediction.dl.label), prediction.score


def build(directory: Path) -> str:
    """Copy the model, name its classes, and give the gateway real rows to warm up with."""
    version = directory / "1"
    version.mkdir(parents=True)
    shutil.copy(_source() / "model.onnx", version / "model.onnx")
    samples = [features(path.read_bytes()) for path in sorted(Path(__file__).parent.glob("*.py"))]
    np.savez(directory / "warmup.npz", bytes=np.stack(samples))
    (directory / "model.toml").write_text(
        "# Tokens above 256 are outside the model's vocabulary, so the warm-up uses real files.\n"
        'warmup = "warmup.npz"\n\n'
        "[outputs.target_label]\n"
        f"labels = {json.dumps(labels())}\n"
    )
    return f"{_package().get_model_name()} of magika {magika.__version__}; {len(labels())} types"
