"""The data of the drift study, which is read from a folder that is given and is no part of this.

Each set is rows in the order of time with their truth: a model is trained on the first ones, the
monitors take the first ones for their reference, and the rest is the stream.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Rows in the order of time.

    Attributes:
        categorical: which features are codes of categories.
        trained: rows that the model is trained on, from the first.
        reference: rows that the monitors compare with, from the first; between the two the model
            has not seen the truth, and its performance is estimated from those.
        window: rows of a window.
        span: what a window is, for people.
        origin, licence: of the data.
    """

    name: str
    features: tuple[str, ...]
    categorical: frozenset[str]
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    trained: int
    reference: int
    window: int
    span: str
    origin: str
    licence: str

    def numeric(self, feature: str) -> bool:
        return feature not in self.categorical


def employment(data: Path) -> Dataset:
    """Who is employed, Massachusetts 2015 to 2018."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = data / "employment_MA"
    first = pq.read_table(folder / "employment_MA_reference.pq")
    rest = pq.read_table(folder / "employment_MA_analysis.pq")
    truth = pq.read_table(folder / "employment_MA_analysis_target.pq")
    features = tuple(
        name
        for name in first.column_names
        if name not in ("id", "employed", "year", "prediction", "predicted_probability")
    )

    def numbers(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
        column = table.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        return np.asarray(column.to_pylist(), np.float64)

    if rest.column("id").to_pylist() != truth.column("id").to_pylist():
        raise ValueError("the truth of employment_MA has other ids than its predictions")
    x = [np.concatenate([numbers(first, name), numbers(rest, name)]) for name in features]
    y = np.concatenate([numbers(first, "employed"), numbers(truth, "employed")])
    return Dataset(
        name="employment_MA",
        features=features,
        categorical=frozenset(features) - {"AGEP"},
        x=np.stack(x, axis=1).astype(np.float32),
        y=y.astype(np.int64),
        trained=30_000,
        reference=first.num_rows,
        window=5000,
        span="5,000 people",
        origin="US Census, ACS PUMS, by folktables, as in the package nannyml 0.13.1",
        licence="Apache-2.0 (the package); micro-data of the US government",
    )


def noaa(data: Path) -> Dataset:
    """Rain or not, daily, Bellevue (Nebraska) 1949 to 1999."""
    table = np.loadtxt(data / "noaa_weather" / "weather.csv", delimiter=",", skiprows=1)
    names = (
        "temperature", "dew_point", "sea_level_pressure", "visibility", "wind_speed",
        "max_wind_speed", "max_temperature", "min_temperature",
    )  # fmt: skip
    return Dataset(
        name="noaa_weather",
        features=names,
        categorical=frozenset(),
        x=table[:, :8].astype(np.float32),
        y=table[:, 8].astype(np.int64),
        trained=2190,
        reference=3650,
        window=365,
        span="a year",
        origin="NOAA, Offutt AFB Bellevue, by Elwell and Polikar (2011), "
        "from scikit-multiflow/streaming-datasets",
        licence="data of the US government; the repository names none",
    )


def elec2(data: Path) -> Dataset:
    """Whether electricity becomes dearer, half-hourly, New South Wales 1996 to 1998."""
    path = data / "elec2" / "elec.csv"
    with path.open() as file:
        names = tuple(file.readline().strip().split(",")[:-1])
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    return Dataset(
        name="elec2",
        features=names,
        categorical=frozenset(),
        x=table[:, :-1].astype(np.float32),
        y=table[:, -1].astype(np.int64),
        trained=10_000,
        reference=15_000,
        window=336,
        span="a week",
        origin="Harries (1999), without date and day, from scikit-multiflow/streaming-datasets",
        licence="the repository names none: not to be passed on",
    )


SETS = {"employment_MA": employment, "noaa_weather": noaa, "elec2": elec2}
