"""``digits``: a classifier of handwritten digits, trained here on scikit-learn's real scans.

The export keeps the ZipMap that skl2onnx adds by default, because that is what people have: its
second output is a sequence of maps, which the Open Inference Protocol cannot express. The gateway
serves it as a tensor of probabilities.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NAME = "digits"

Pixels = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def split() -> tuple[Pixels, Pixels, Labels, Labels]:
    """Training and held-out pixels (``[n, 64]``, 0 to 16), then their labels (``[n]``)."""
    images, labels = load_digits(return_X_y=True)
    pixels = images.astype(np.float32)
    train, held_out, train_labels, held_out_labels = train_test_split(
        pixels, labels.astype(np.int64), test_size=0.25, stratify=labels, random_state=0
    )
    return train, held_out, train_labels, held_out_labels


def build(directory: Path) -> str:
    """Train, export, and say in one line what came out."""
    train, held_out, train_labels, held_out_labels = split()
    classifier = make_pipeline(
        StandardScaler(), MLPClassifier(hidden_layer_sizes=(64,), max_iter=400, random_state=0)
    )
    classifier.fit(train, train_labels)
    accuracy = classifier.score(held_out, held_out_labels)
    model = convert_sklearn(
        classifier, NAME, initial_types=[("pixels", FloatTensorType([None, train.shape[1]]))]
    )
    version = directory / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(model.SerializeToString())
    return (
        f"trained on {len(train)} scans; {accuracy:.1%} of {len(held_out)} held-out scans are right"
    )


def draw(pixels: Pixels) -> list[str]:
    """One image (``[64]``, 0 to 16) as eight lines of text."""
    shades = " .:-=+*#%@"
    return [
        "".join(shades[round(float(value) / 16 * (len(shades) - 1))] * 2 for value in row)
        for row in pixels.reshape(8, 8)
    ]
