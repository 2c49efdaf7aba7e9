"""Drift in real data: ``python -m loadtests.drift_study --data DIR [--only NAME ...]``.

For each set of ``drift_data.py``: a model is trained on the first rows and served as ONNX by a
running gateway, the rest goes through it in the order of time, and what comes out of its prediction
stream is what the tests see. Beside that, on rows in random order: false alarms where nothing
changes, and the delay after a change whose place is known. Figures of other libraries are compared.

The tables and the plot in ``docs/`` are written anew from all sets that have been run, which are
kept in ``build/drift-study.json``. Wants the extras ``demo`` and ``monitor``, and pyarrow. The exit
code is 1 where a published figure does not come out, or a test has more false alarms than its
level allows.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.monitor.error_rate import ErrorDistanceAlarm, ErrorRateAlarm
from gateway.monitor.estimation import PerformanceEstimator
from gateway.monitor.findings import Level
from gateway.monitor.quality import Judged, classification
from loadtests import drift_parity, drift_report
from loadtests.drift_data import SETS, Dataset
from loadtests.drift_serving import save, stream
from loadtests.drift_suite import ONLINE, TESTS, Suite, windows_of

REPOSITORY = Path("build/drift-models")
RESULTS = Path("build/drift-study.json")
STILL_WINDOWS = 200
#: Runs with a known change, windows before it and after it.
CHANGES, BEFORE, AFTER = 5, 5, 10
#: Rows of the reference where the order is random: as many as employment_MA has in time.
MOST_REFERENCE = 70_000

Row = npt.NDArray[np.float32]


def trained(data: Dataset) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(max_iter=80, learning_rate=0.1, random_state=0)
    return model.fit(data.x[: data.trained], data.y[: data.trained])


def live(data: Dataset) -> dict[str, Any]:
    """The stream in the order of time, through the gateway."""
    save(trained(data), data.features, REPOSITORY / data.name)
    seen = stream(REPOSITORY, data.name, data.x[data.trained :])
    known = data.reference - data.trained
    suite = Suite(data.features, data.categorical, data.x[: data.reference], data.window)
    alarms, figures = [], []
    for rows in windows_of(seen.x[known:], data.window):
        alarms.append(suite.look(rows))
        figures.append(suite.figures)
    truth = data.y[data.trained :]
    judged = Judged(truth, seen.label, 2, seen.probabilities, seen.probabilities.max(axis=1))
    return {
        "rows": len(seen.x),
        "batches": seen.batches,
        "alarms": alarms,
        "figures": figures,
        **performance(judged, known, data.window),
    }


def part_of(judged: Judged, part: slice) -> Judged:
    assert judged.probabilities is not None
    assert judged.confidence is not None
    return Judged(
        judged.truth[part], judged.predicted[part], judged.classes,
        judged.probabilities[part], judged.confidence[part],
    )  # fmt: skip


def performance(judged: Judged, known: int, window: int) -> dict[str, Any]:
    """Accuracy by window, as labels say and as it is estimated without; alarms over the errors."""
    estimator = PerformanceEstimator(part_of(judged, slice(0, known)), window_rows=window)
    windows = []
    for start in range(known, len(judged.truth), window):
        part = part_of(judged, slice(start, start + window))
        assert part.probabilities is not None
        true = classification(part)
        estimated = estimator.estimate(part.probabilities, part.predicted)
        windows.append(
            {
                "accuracy": true["accuracy"].value,
                "low": true["accuracy"].low,
                "high": true["accuracy"].high,
                "estimated_accuracy": estimated["accuracy"].value,
            }
        )
    wrong = (judged.truth != judged.predicted)[known:].tolist()
    found: dict[str, list[int]] = {"ddm": [], "eddm": []}
    for name, alarm in (("ddm", ErrorRateAlarm()), ("eddm", ErrorDistanceAlarm())):
        found[name] = [row for row, one in enumerate(wrong) if alarm.add(one) is Level.DRIFTED]
    wanted = estimator.ranges["accuracy"]
    return {"performance": windows, "range": [wanted.low, wanted.high], "errors": found}


def still(data: Dataset) -> dict[str, Any]:
    """False alarms over windows of rows in random order, against other rows of the same kind."""
    counts: Counter[str] = Counter()
    by_feature: Counter[str] = Counter()
    windows = turn = 0
    while windows < STILL_WINDOWS:
        order = np.random.default_rng(turn).permutation(len(data.x))
        half = len(order) // 2
        reference = data.x[order[: min(half, MOST_REFERENCE)]]
        suite = Suite(data.features, data.categorical, reference, data.window, turn)
        # The last window of a half would be a short one.
        for rows in windows_of(data.x[order[half:]], data.window)[:-1]:
            if windows == STILL_WINDOWS:
                break
            for test, subjects in suite.look(rows).items():
                counts[test] += bool(subjects)
                by_feature[test] += len(subjects)
            windows += 1
        turn += 1
    return {"windows": windows, "alarmed": dict(counts), "subjects": dict(by_feature)}


def changed(data: Dataset) -> dict[str, list[int | None]]:
    """Rows from a known change to the alarm, by test; ``None`` where there is none in time.

    Rows of the reference in random order become, at one place, the newest rows in random order.
    """
    made: dict[str, list[int | None]] = {test: [] for test in TESTS}
    newest = data.x[-max(data.reference // 2, AFTER * data.window) :]
    for turn in range(CHANGES):
        random = np.random.default_rng(100 + turn)
        old, new = random.permutation(data.x[: data.reference]), random.permutation(newest)
        before = old[: BEFORE * data.window]
        reference = old[BEFORE * data.window :][:MOST_REFERENCE]
        suite = Suite(data.features, data.categorical, reference, data.window, turn)
        first: dict[str, int] = {}
        stop = min(AFTER, len(new) // data.window) * data.window
        parts = windows_of(np.concatenate([before, new[:stop]]), data.window)
        for number, rows in enumerate(parts):
            alarms = suite.look(rows)
            if number < BEFORE:
                continue
            for test, subjects in alarms.items():
                if subjects:
                    at = suite.firsts[test] + 1 if test in ONLINE else suite.rows
                    first.setdefault(test, at - len(before))
        for test in TESTS:
            made[test].append(first.get(test))
    return made


def study(name: str, folder: Path) -> dict[str, Any]:
    data = SETS[name](folder)
    print(f"{name}: {len(data.x):,} rows", flush=True)
    found: dict[str, Any] = {
        "features": data.features,
        "categories": len(data.categorical),
        "window": data.window,
        "span": data.span,
        "trained": data.trained,
        "reference": data.reference,
        "total": len(data.x),
        "origin": data.origin,
        "licence": data.licence,
    }
    for step in (live, still, changed):
        found[step.__name__] = step(data)
        print(f"{name}: {step.__name__} done", flush=True)
    return found


def known() -> dict[str, Any]:
    """All that has been run, in the order of ``SETS``."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return {name: found[name] for name in SETS if name in found}


def main() -> int:
    parser = argparse.ArgumentParser(description="Study the drift in real data.")
    parser.add_argument("--data", type=Path, required=True, help="the folder with the sets")
    parser.add_argument(
        "--only",
        nargs="*",
        choices=tuple(SETS),
        default=list(SETS),
        help="the sets that are run anew",
    )
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    for name in arguments.only:
        found = study(name, arguments.data)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps({**known(), name: found}))
    results = known()
    parity = drift_parity.compare(arguments.data, results)
    drift_report.write(arguments.docs, results, parity)
    wrong = [*drift_parity.missed(parity), *drift_report.too_many_false_alarms(results)]
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
