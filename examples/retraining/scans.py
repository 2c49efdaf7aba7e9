"""The world of the example: measurements of cell nuclei, and a microscope that is replaced.

The 569 real cases that scikit-learn carries (Wisconsin Diagnostic Breast Cancer, UCI) stand for a
clinic's patients; a stream of them is drawn with a little noise. One day the clinic has a new
microscope, which is calibrated otherwise: every length is 50% larger, so an area is more than twice
as large. Nobody tells the model.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_breast_cancer

Rows = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

#: How much larger the new microscope shows a length.
SCALE: Final = 1.5
#: Noise of a measurement, as a share of it.
NOISE: Final = 0.02

_data: Any = load_breast_cancer()
#: The measurements' names, as features are named.
FEATURES: Final = tuple(str(name).replace(" ", "_") for name in _data.feature_names)
#: What a prediction says: 0 and 1.
DIAGNOSES: Final = ("malignant", "benign")

_LENGTHS: Final = [i for i, n in enumerate(FEATURES) if "radius" in n or "perimeter" in n]
_AREAS: Final = [i for i, n in enumerate(FEATURES) if "area" in n]


def draw(count: int, seed: int, *, new_microscope: bool = False) -> tuple[Rows, Labels]:
    """``count`` patients: their measurements, and what the laboratory finds out later."""
    random = np.random.default_rng(seed)
    chosen = random.integers(len(_data.data), size=count)
    rows = _data.data[chosen] * random.normal(1.0, NOISE, (count, len(FEATURES)))
    if new_microscope:
        rows[:, _LENGTHS] *= SCALE
        rows[:, _AREAS] *= SCALE**2
    return rows.astype(np.float32), _data.target[chosen].astype(np.int64)
