"""Four versions of a classifier of handwritten digits, as they come up in a team's life.

1. A small network, trained on the first scans that there were.
2. A larger one, trained on all of them: the better model.
3. As 2, but the job that collects the scans had lost the digits 5 to 9.
4. As 2, exported again by a tool that rounds its weights much too coarsely.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from examples.models.digits import Labels, Pixels, split

NAME = "digits"
#: Only version 1 is loaded by itself; the others when somebody asks for them.
SETTINGS = 'version_policy = { specific = ["1"] }\n'

#: What each version was made of, for its ``lineage.toml``.
LINEAGE = {
    "1": ("digits-2024-01", "3f9c2ab", "the first 300 scans"),
    "2": ("digits-2024-06", "8d41e07", "all scans"),
    "3": ("digits-2024-07", "8d41e07", "all scans, or so it was thought"),
    "4": ("digits-2024-06", "b7702fe", "version 2, exported anew"),
}


def build(directory: Path) -> None:
    """Train the versions and lay them out in ``directory`` as the gateway reads them."""
    pixels, _, labels, _ = split()
    few = labels < 5
    better = _classifier(64).fit(pixels, labels)
    versions: dict[str, onnx.ModelProto] = {
        "1": _exported(_classifier(6).fit(pixels[:300], labels[:300])),
        "2": _exported(better),
        "3": _exported(_classifier(64).fit(pixels[few], labels[few])),
        "4": _rounded(_exported(better)),
    }
    for version, model in versions.items():
        place = directory / version
        place.mkdir(parents=True)
        onnx.save(model, place / "model.onnx")
        dataset, commit, note = LINEAGE[version]
        (place / "lineage.toml").write_text(
            f'note = "{note}"\n[dataset]\nname = "{dataset}"\n[code]\ncommit = "{commit}"\n'
        )
    (directory / "model.toml").write_text(SETTINGS)


def scans(count: int, seed: int = 0) -> tuple[Pixels, Labels]:
    """``count`` scans as they come in, none of them of the training set unless they run out."""
    _, pixels, _, labels = split()
    chosen = np.random.default_rng(seed).integers(len(pixels), size=count)
    return pixels[chosen], labels[chosen]


def _classifier(width: int) -> Any:
    network = MLPClassifier(hidden_layer_sizes=(width,), max_iter=2000, random_state=0)
    return make_pipeline(StandardScaler(), network)


def _exported(classifier: Any) -> onnx.ModelProto:
    return convert_sklearn(
        classifier,
        NAME,
        initial_types=[("pixels", FloatTensorType([None, 64]))],
        options={"zipmap": False},
    )


def _rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim == 2 and min(values.shape) > 1:
            tensor.CopyFrom(numpy_helper.from_array(values.round(1), tensor.name))
    return model
