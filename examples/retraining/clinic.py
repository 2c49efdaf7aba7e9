"""The clinic: asks the gateway about its patients, and learns later how they were."""

import csv
import json
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import numpy as np

from examples.retraining.scans import FEATURES, Labels, Rows, draw
from examples.retraining.versions import MODEL

#: Patients of one request.
BATCH: Final = 25


class Clinic:
    """Sends patients to the gateway at ``port``; what the laboratory confirms goes to a file.

    The file has a line for each patient: when the answer came, the measurements, the diagnosis.
    """

    def __init__(self, port: int, confirmed: Path) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._confirmed = confirmed
        self._seed = 1000

    def see(self, patients: int, *, new_microscope: bool) -> tuple[float, set[str]]:
        """Send so many; the share of right answers, and the versions that gave them."""
        self._seed += 1
        rows, labels = draw(patients, self._seed, new_microscope=new_microscope)
        right, versions = 0, set()
        for start in range(0, patients, BATCH):
            part = slice(start, start + BATCH)
            answers, version = self._ask(rows[part])
            versions.add(version)
            right += int((answers == labels[part]).sum())
            self._confirm(rows[part], labels[part])
        return right / patients, versions

    def _ask(self, rows: Rows) -> tuple[Labels, str]:
        tensor = {
            "name": "measurements",
            "datatype": "FP32",
            "shape": list(rows.shape),
            "data": rows.ravel().tolist(),
        }
        body = json.dumps({"inputs": [tensor], "outputs": [{"name": "label"}]})
        self._connection.request("POST", f"/v2/models/{MODEL}/infer", body)
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            raise RuntimeError(f"the gateway answered {response.status}: {answer}")
        return np.array(answer["outputs"][0]["data"], np.int64), answer["model_version"]

    def _confirm(self, rows: Rows, labels: Labels) -> None:
        new = not self._confirmed.exists()
        now = time.time()
        with self._confirmed.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(("at", *FEATURES, "diagnosis"))
            for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
                writer.writerow((f"{now:.6f}", *row, label))
