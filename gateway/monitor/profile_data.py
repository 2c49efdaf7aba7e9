"""Reads reference data: columns of a CSV or Parquet file, arrays of an ``.npz``."""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from gateway.errors import ConfigError
from gateway.monitor.profile import ProfileSource
from gateway.serving.signature import TensorSpec
from gateway.types import BOOL, BYTES, Array, DataType

SUFFIXES: Final = (".csv", ".parquet", ".pq", ".npz")

_TRUTH: Final = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True, slots=True)
class ReferenceData:
    """What a file of reference data holds.

    Attributes:
        columns: of a table, by name: floats with NaN where there is nothing, or objects, ``str``,
            ``""`` where there is nothing.
        arrays: of an ``.npz``, rows first; there are no columns then.
        rows: that every one of them has, as far as arrays have the rows first.
    """

    path: Path
    columns: dict[str, Array]
    arrays: dict[str, Array]
    rows: int

    def source(self) -> ProfileSource:
        """What a profile remembers of it; reads the file again for its checksum."""
        total = hashlib.sha256()
        with self.path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
        return ProfileSource(name=self.path.name, rows=self.rows, sha256=total.hexdigest())


def read_data(path: Path, most_rows: int | None = None) -> ReferenceData:
    """The reference data in a file, its first ``most_rows`` rows.

    Raises:
        ConfigError: the file cannot be read, is of no known kind, or has no rows.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: expected a file that ends with {', '.join(SUFFIXES)}")
    try:
        if path.suffix == ".npz":
            data = _read_npz(path, most_rows)
        elif path.suffix == ".csv":
            data = _read_csv(path, most_rows)
        else:
            data = _read_parquet(path, most_rows)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    if not data.rows:
        raise ConfigError(f"{path} has no rows")
    return data


def _read_npz(path: Path, most: int | None) -> ReferenceData:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except OSError:
        raise
    except Exception as error:
        raise ConfigError(f"{path} cannot be read as a .npz of plain arrays: {error}") from error
    arrays = {
        name: array.astype(object) if array.dtype.kind in "US" else array
        for name, array in arrays.items()
    }
    rows = max((len(array) for array in arrays.values() if array.ndim), default=0)
    kept = rows if most is None else min(rows, most)
    arrays = {
        name: array[:kept] if array.ndim and len(array) == rows else array
        for name, array in arrays.items()
    }
    return ReferenceData(path, {}, arrays, kept)


def _read_csv(path: Path, most: int | None) -> ReferenceData:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            names = next(reader, [])
            lines: list[list[str]] = []
            for line in reader:
                if most is not None and len(lines) == most:
                    break
                if line and len(line) != len(names):
                    raise ConfigError(
                        f"{path}: line {reader.line_num} has {len(line)} fields, the first line "
                        f"has {len(names)}"
                    )
                if line:
                    lines.append(line)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as CSV in UTF-8: {error}") from error
    _check_names(path, names)
    columns = {name: _column([line[at] for line in lines]) for at, name in enumerate(names)}
    return ReferenceData(path, columns, {}, len(lines))


def _column(fields: list[str]) -> Array:
    """Numbers where every field that is not empty is one; else texts."""
    try:
        return np.array([_number(field) for field in fields], np.float64)
    except ValueError:
        return np.array(fields, object)


def _number(field: str) -> float:
    if not field.strip():
        return float("nan")
    word = _TRUTH.get(field.strip().lower())
    return float(field) if word is None else word


def _read_parquet(path: Path, most: int | None) -> ReferenceData:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            f"{path}: reading Parquet needs pyarrow: pip install 'onnx-gateway[monitor]'"
        ) from None
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise ConfigError(f"{path} cannot be read as Parquet: {error}") from error
    if most is not None:
        table = table.slice(0, most)
    _check_names(path, table.column_names)
    columns = {name: _arrow_column(table.column(name)) for name in table.column_names}
    return ReferenceData(path, columns, {}, table.num_rows)


def _arrow_column(column: Any) -> Array:
    import pyarrow

    kind = column.type
    number = pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind)
    if number or pyarrow.types.is_boolean(kind):
        values = [float("nan") if value is None else value for value in column.to_pylist()]
        return np.array(values, np.float64)
    return np.array(["" if value is None else str(value) for value in column.to_pylist()], object)


def _check_names(path: Path, names: Sequence[str]) -> None:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path} names columns twice: {', '.join(map(repr, repeated))}")
    if not names:
        raise ConfigError(f"{path} is empty: its first line must name the columns")


# -- tensors ----------------------------------------------------------------------------------


def tensor_of(
    data: ReferenceData, spec: TensorSpec, chosen: Sequence[str] = ()
) -> tuple[Array, tuple[str, ...]] | None:
    """All rows of one tensor, ``[rows, ...]`` in its type, and the names of its columns.

    A table's columns are found by the tensor's own name, the names of its features, ``name[i]``,
    or those that were ``chosen``. ``None`` where the data does not have it.

    Raises:
        ConfigError: its values do not fit the tensor's type or width.
    """
    shape = list(spec.shape)
    if spec.batch_axis is not None:
        del shape[spec.batch_axis]
    if spec.name in data.arrays:
        return _as_type(f"{data.path}: {spec.name}", data.arrays[spec.name], spec.datatype), ()
    names = _names_of(data, spec, shape, chosen)
    if names is None:
        return None
    columns = [
        _as_type(f"{data.path}: column {name!r}", data.columns[name], spec.datatype)
        for name in names
    ]
    fixed = [len(names) if size < 0 and at == len(shape) - 1 else max(size, 1)
             for at, size in enumerate(shape)]  # fmt: skip
    if int(np.prod(fixed, dtype=np.int64)) != len(names):
        raise ConfigError(
            f"{data.path}: input '{spec.name}' takes rows of shape {shape}, which "
            f"{len(names)} columns do not fill; give an .npz with an array of that name"
        )
    stacked = np.stack(columns, axis=1).reshape(data.rows, *fixed)
    return stacked, tuple(names) if len(shape) and fixed[-1] == len(names) else ()


def _names_of(
    data: ReferenceData, spec: TensorSpec, shape: list[int], chosen: Sequence[str]
) -> list[str] | None:
    if chosen:
        for name in chosen:
            if name not in data.columns:
                raise ConfigError(
                    f"{data.path} has no column {name!r}; it has {', '.join(data.columns)}"
                )
        return list(chosen)
    width = shape[-1] if shape else 1
    numbered = [f"{spec.name}[{at}]" for at in range(max(width, 1))]
    for names in ([spec.name], list(spec.features), numbered):
        if names and all(name in data.columns for name in names):
            return names
    return None


def _as_type(where: str, values: Array, datatype: DataType) -> Array:
    """``values`` in a tensor's type; refused where that would change what they say."""
    if datatype is BYTES:
        if values.dtype.hasobject:
            return values
        texts = ["" if value != value else f"{value:g}" for value in values.ravel().tolist()]
        return np.array(texts, object).reshape(values.shape)
    if values.dtype.hasobject:
        bad = next((value for value in values.ravel().tolist() if not _is_number(value)), "")
        raise ConfigError(f"{where} holds text such as {bad!r}; the model takes {datatype.name}")
    if values.dtype == datatype.numpy:
        return values
    if datatype.numpy.kind in "iub" and values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ConfigError(
                f"{where} has missing values, which {datatype.name} cannot hold: fill them first"
            )
        whole = values == np.floor(values)
        most = 1 if datatype is BOOL else np.iinfo(datatype.numpy).max
        least = 0 if datatype is BOOL else np.iinfo(datatype.numpy).min
        if not (whole & (values >= least) & (values <= most)).all():
            raise ConfigError(f"{where} has values that {datatype.name} cannot hold")
    with np.errstate(over="ignore"):
        return values.astype(datatype.numpy)


def _is_number(field: str) -> bool:
    try:
        _number(field)
    except ValueError:
        return False
    return True
