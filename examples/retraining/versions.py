"""Makes versions of the model as the gateway reads them: with golden requests, lineage and profile.

A version's directory is made beside the repository and moved there whole, so that nobody ever sees
half of one.
"""

import csv
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from examples.retraining.scans import FEATURES, Labels, Rows

MODEL: Final = "tumour"
#: Requests that a version is held to before it may serve.
GOLDEN: Final = 8

#: Only version 1 is loaded by itself: another one serves when somebody promotes it.
_SETTINGS: Final = f"""\
version_policy = {{ specific = ["1"] }}
[inputs.measurements]
features = [{", ".join(f'"{name}"' for name in FEATURES)}]
[validation]
require_golden = true
"""
_MONITOR: Final = """\
# A quarter of the measurements, in two windows of 500 patients, is no accident.
tests = ["kolmogorov_smirnov", "chi_square"]
[window]
rows = 500
[alerts]
raise_after = [2, 2]
clear_after = 2
[alerts.rules.measurements]
drifted_share = 0.25
warning_share = 0.1
"""


def build_first(models: Path, staging: Path, rows: Rows, labels: Labels) -> None:
    """Lay the model out with version 1, trained on ``rows``."""
    (models / MODEL).mkdir(parents=True)
    (models / MODEL / "model.toml").write_text(_SETTINGS)
    (models / MODEL / "monitor.toml").write_text(_MONITOR)
    add_version(models, staging, "1", train(rows, labels), rows, note="the first model")


def train(rows: Rows, labels: Labels) -> Any:
    """A classifier of ``rows``."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(rows, labels)


def add_version(
    models: Path,
    staging: Path,
    version: str,
    classifier: Any,
    rows: Rows,
    *,
    note: str,
    **more: Any,
) -> Path:
    """Export ``classifier``, trained on ``rows``, as a version of the repository ``models``.

    Args:
        staging: a directory on the same file system.
        note, more: for its lineage.
    """
    made = staging / MODEL / version
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    shutil.copy(models / MODEL / "model.toml", staging / MODEL)
    model = convert_sklearn(
        classifier,
        MODEL,
        initial_types=[("measurements", FloatTensorType([None, len(FEATURES)]))],
        options={"zipmap": False},
    )
    content = model.SerializeToString()
    (made / "model.onnx").write_bytes(content)
    _write_golden(made, content, rows)
    _write_lineage(made, rows, note, more)
    _write_profile(made, rows)
    place = models / MODEL / version
    made.rename(place)
    return place


def _write_golden(made: Path, content: bytes, rows: Rows) -> None:
    """What ONNX Runtime answers here it must answer in the gateway."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    (made / "golden").mkdir()
    for number in range(GOLDEN):
        row = rows[number : number + 1]
        outputs = dict(zip(names, session.run(names, {"measurements": row}), strict=True))
        np.savez(
            made / "golden" / f"{number}.npz",
            **{"input:measurements": row, **{f"output:{k}": v for k, v in outputs.items()}},
        )


def _write_lineage(made: Path, rows: Rows, note: str, more: dict[str, Any]) -> None:
    digest = hashlib.sha256(rows.tobytes()).hexdigest()
    told = "".join(f'{key} = "{value}"\n' for key, value in more.items())
    (made / "lineage.toml").write_text(
        f'note = "{note}"\n{told}[dataset]\nrows = {len(rows)}\ndigest = "sha256:{digest}"\n'
        '[parameters]\nmodel = "StandardScaler, LogisticRegression"\n'
    )


def _write_profile(made: Path, rows: Rows) -> None:
    data = made.with_suffix(".csv")
    with data.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(FEATURES)
        writer.writerows(rows.tolist())
    command = ("profile", "build", "--model", str(made), "--data", str(data))
    options = ("--outputs-from-model", "--output", str(made / "profile.json"))
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *command, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the profile could not be built: {done.stderr.strip()}")
    data.unlink()
