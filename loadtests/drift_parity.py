"""Figures that other libraries give or have published, and ours on the same rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.monitor import binning, drift
from gateway.monitor.estimation import PerformanceEstimator
from gateway.monitor.quality import Judged
from loadtests.drift_data import elec2, employment
from loadtests.drift_serving import save, stream
from loadtests.drift_suite import windows_of

REPOSITORY = Path("build/drift-models")

#: NannyML's alerts over 42 chunks of employment_MA, published in its quick start.
ALERTS = {"ANC": 37, "AGEP": 29, "RELP": 28, "MAR": 28, "DREM": 28}
AGEP = (0.034691785, 0.022822548, 0.035686558, 0.029773097, 0.042421288)
CBPE = (0.905509, 0.906992, 0.902004, 0.905212)
CBPE_ALERTS = 2
#: Evidently 0.7.23, employment_MA 2015 against 2018: PSI, Jensen-Shannon, and scipy's chi-square.
CATEGORIES = {
    "RELP": (0.001999066, 0.015778747, 68.900766),
    "ANC": (0.014121638, 0.041954731, 487.190181),
    "MAR": (0.000281363, 0.005930056, 9.769981),
}
AGEP_2018 = (0.004009099, 0.022379716, 0.023784887, 0.016559080)
#: Evidently 0.7.23 and scipy, elec2's rows 0 to 15,000 against 15,000 to 30,000.
ELEC2 = {
    "nswprice": (0.966182718, 0.332070590, 1.058829028, 0.506533333, 0.027223088),
    "nswdemand": (0.035792034, 0.066326207, 0.147896385, 0.062733333, 0.023326562),
}
#: The accuracy of a naive Bayes classifier that is frozen after 1,000 rows, by river 0.26.1: over
#: all rows, each of the first ones predicted before it is learned.
FROZEN_AFTER = 1000
FROZEN = {"noaa_weather": 0.665712, "elec2": 0.704200}


@dataclass(frozen=True, slots=True)
class Parity:
    """A figure of another library's and ours; ``within`` is how far apart they may be."""

    what: str
    theirs: float
    ours: float
    within: float

    @property
    def equal(self) -> bool:
        return abs(self.theirs - self.ours) <= self.within


def compare(data: Path, results: dict[str, Any]) -> list[Parity]:
    """All that can be compared with what has been run."""
    made: list[Parity] = []
    if "employment_MA" in results:
        made += _alerts(results["employment_MA"]["live"])
    made += _cbpe(data)
    made += _employment(data)
    made += _elec2(data)
    made.append(_frozen("noaa_weather", data / "noaa_weather" / "weather.csv"))
    made.append(_frozen("elec2", data / "elec2" / "elec.csv"))
    return made


def missed(parity: list[Parity]) -> list[str]:
    return [f"{one.what}: {one.ours!r}, not {one.theirs!r}" for one in parity if not one.equal]


def _alerts(found: dict[str, Any]) -> list[Parity]:
    """Jensen-Shannon by window, of what came out of the gateway's stream."""
    counts = {
        name: sum(name in alarms["jensen_shannon"] for alarms in found["alarms"]) for name in ALERTS
    }
    made = [
        Parity(f"NannyML, alerts over 42 live windows, {name}", alerts, counts[name], 0)
        for name, alerts in ALERTS.items()
    ]
    for window, theirs in enumerate(AGEP):
        ours = found["figures"][window]["jensen_shannon"]["AGEP"]
        made.append(
            Parity(f"NannyML, Jensen-Shannon, AGEP, live window {window}", theirs, ours, 1e-8)
        )
    return made


def _cbpe(folder: Path) -> list[Parity]:
    """With the predictions that come with the data."""
    import pyarrow.parquet as pq

    def read(name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any], Any]:
        table = pq.read_table(folder / "employment_MA" / f"employment_MA_{name}.pq")
        one = np.asarray(table.column("predicted_probability"), np.float64)
        told = np.asarray(table.column("prediction"), np.int64)
        return np.stack([1 - one, one], axis=1), told, table

    probabilities, told, table = read("reference")
    truth = np.asarray(table.column("employed"), np.int64)
    reference = Judged(truth, told, 2, probabilities, probabilities.max(axis=1))
    estimator = PerformanceEstimator(reference, window_rows=5000)
    wanted = estimator.ranges["roc_auc"]
    probabilities, told, _ = read("analysis")
    areas = [
        estimator.estimate(part, chosen)["roc_auc"].value
        for part, chosen in zip(
            windows_of(probabilities, 5000), windows_of(told, 5000), strict=True
        )
    ]
    made = [
        Parity(f"NannyML, CBPE ROC AUC, window {window}", theirs, areas[window], 5e-7)
        for window, theirs in enumerate(CBPE)
    ]
    alerts = sum(not wanted.low <= area <= wanted.high for area in areas)
    return [*made, Parity("NannyML, CBPE alerts over 42 windows", CBPE_ALERTS, alerts, 0)]


def _employment(folder: Path) -> list[Parity]:
    """2015, the reference, against 2018."""
    import pyarrow.parquet as pq

    data = employment(folder)
    path = folder / "employment_MA" / "employment_MA_analysis.pq"
    year = np.asarray(pq.read_table(path, columns=["year"]).column("year"), np.int64)
    before, after = data.x[: data.reference], data.x[data.reference :][year == 2018]
    made = []
    for name, (psi, distance, statistic) in CATEGORIES.items():
        place = data.features.index(name)
        counts = binning.category_counts(before[:, place], after[:, place])
        made += [
            Parity(f"Evidently, PSI, {name}", psi, drift.psi(*counts), 1e-6),
            Parity(
                f"Evidently, Jensen-Shannon, {name}", distance,
                drift.jensen_shannon(*counts, base=np.e), 1e-6,
            ),
            Parity(f"chi-square, {name}", statistic, drift.chi_square(*counts)[0], 1e-6),
        ]  # fmt: skip
    place = data.features.index("AGEP")
    return made + _numbers("AGEP", before[:, place], after[:, place], AGEP_2018)


def _numbers(
    name: str,
    before: npt.NDArray[Any],
    after: npt.NDArray[Any],
    theirs: tuple[float, ...],
) -> list[Parity]:
    before, after = before.astype(np.float64), after.astype(np.float64)
    counts = binning.evidently_counts(before, after)
    pair = drift.Sample.of(before), drift.Sample.of(after)
    ours = [
        drift.psi(*counts),
        drift.jensen_shannon(*counts, base=np.e),
        drift.wasserstein_over_deviation(*pair, float(before.std())),
        drift.kolmogorov_smirnov(*pair, method="asymp")[0],
        drift.wasserstein(*pair),
    ]
    what = ("PSI", "Jensen-Shannon", "Wasserstein over deviation", "KS", "Wasserstein")
    libraries = ("Evidently", "Evidently", "Evidently", "scipy", "scipy")
    return [
        Parity(f"{library}, {figure}, {name}", their, our, 1e-6)
        for library, figure, their, our in zip(libraries, what, theirs, ours, strict=False)
    ]


def _elec2(folder: Path) -> list[Parity]:
    # In float64, as the libraries had it.
    path = folder / "elec2" / "elec.csv"
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    names = elec2(folder).features
    made = []
    for name, theirs in ELEC2.items():
        column = table[:, names.index(name)]
        made += _numbers(name, column[:15_000], column[15_000:30_000], theirs)
    return made


def _frozen(name: str, path: Path) -> Parity:
    """Served as ONNX by the gateway.

    In 64 bits: some features of elec2 are the same in all of the first rows, and against their
    deviation of 1e-5 the rounding of 32 bits is large (0.6308 of the later rows, not 0.7009).
    """
    from sklearn.naive_bayes import GaussianNB

    table = np.loadtxt(path, delimiter=",", skiprows=1)
    x, y = table[:, :-1], table[:, -1].astype(np.int64)
    model = GaussianNB().fit(x[:FROZEN_AFTER], y[:FROZEN_AFTER])
    features = tuple(f"feature {place}" for place in range(x.shape[1]))
    save(model, features, REPOSITORY / f"frozen_{name}", double=True)
    seen = stream(REPOSITORY, f"frozen_{name}", x[FROZEN_AFTER:])
    right = int((seen.label == y[FROZEN_AFTER:]).sum()) + _while_learning(x, y)
    what = f"river, accuracy of naive Bayes frozen after 1,000 rows, {name}, served"
    return Parity(what, FROZEN[name], right / len(x), 1e-4)


def _while_learning(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> int:
    """How many of the first rows are right, each asked for before it is learned from."""
    from river.naive_bayes import GaussianNB

    model, right = GaussianNB(), 0
    for row, truth in zip(x[:FROZEN_AFTER].tolist(), y[:FROZEN_AFTER].tolist(), strict=True):
        named = dict(enumerate(row))
        right += model.predict_one(named) == truth
        model.learn_one(named, truth)
    return right
