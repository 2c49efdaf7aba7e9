"""Where a version comes from: read beside its file, or from the file itself."""

from pathlib import Path

import onnx
import pytest

from gateway.errors import LoadError
from gateway.serving.lineage import MAX_BYTES, read_lineage
from gateway.serving.loader import load_model
from gateway.serving.settings import ModelSettings
from tests.repository import rows

LINEAGE = """
trained = 2024-03-01
[dataset]
name = "elec2"
digest = "sha256:9c1e"
[code]
commit = "4f1d0c2"
[parameters]
layers = [64, 32]
limit = inf
"""


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    built = rows()
    built.producer_name = "a tool"
    built.metadata_props.add(key="commit", value="from the file")
    onnx.save(built, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_the_file_beside_the_model_is_kept_whole_as_json_values(model_file: Path) -> None:
    (model_file.parent / "lineage.toml").write_text(LINEAGE)
    loaded = load_model("m", "1", model_file, ModelSettings())
    assert loaded.lineage == {
        "trained": "2024-03-01",
        "dataset": {"name": "elec2", "digest": "sha256:9c1e"},
        "code": {"commit": "4f1d0c2"},
        "parameters": {"layers": [64, 32], "limit": "inf"},
    }


def test_without_it_the_models_own_key_value_pairs_are_the_lineage(model_file: Path) -> None:
    loaded = load_model("m", "1", model_file, ModelSettings())
    assert loaded.lineage == {"commit": "from the file"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[dataset", "is not TOML"),
        (b"name = '\xff'", "is not TOML"),
        (b"#" * (MAX_BYTES + 1), "are the most"),
    ],
)
def test_a_lineage_that_cannot_be_kept_fails_the_load(
    model_file: Path, content: bytes, said: str
) -> None:
    (model_file.parent / "lineage.toml").write_bytes(content)
    with pytest.raises(LoadError, match=said):
        load_model("m", "1", model_file, ModelSettings())


def test_a_lineage_that_cannot_be_read_fails_the_load(tmp_path: Path) -> None:
    (tmp_path / "lineage.toml").symlink_to("/proc/self/mem")
    with pytest.raises(LoadError, match="cannot be read"):
        read_lineage(tmp_path / "model.onnx", {})
