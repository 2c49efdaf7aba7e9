"""Reads and writes reference profiles: one small JSON file, all of it checked when it is read."""

import base64
import binascii
import contextlib
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from gateway.errors import ConfigError
from gateway.monitor.features import MOST_SUBJECT, Layout, Part, Side, TensorLayout
from gateway.monitor.profile import (
    QUANTILES,
    CategoricalReference,
    FeatureProfile,
    NumericReference,
    Profile,
    ProfileSource,
)
from gateway.tables import (
    Check,
    boolean,
    choice,
    integer,
    list_of,
    read_table,
    table,
    text,
    wrong,
)
from gateway.types import Array

FORMAT: Final = "onnx-gateway profile"
FORMAT_VERSION: Final = 1
#: Larger files are not read.
MOST_BYTES: Final = 64 << 20
#: Rows of a reference at most; counts of them fit the counters.
MOST_ROWS: Final = 1 << 53
#: What a sample may take when it is unpacked.
MOST_ARRAY_BYTES: Final = 64 << 20


def write_profile(path: Path, profile: Profile) -> None:
    """Write a profile, whole or not at all.

    Raises:
        ConfigError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(json.dumps(document_of(profile), indent=1) + "\n", "utf-8")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ConfigError(f"the profile {path} cannot be written: {error.strerror}") from error


def read_profile(path: Path, digest: str | None = None) -> Profile:
    """Read a profile.

    Args:
        digest: of the model that it must be bound to; ``None`` for any.

    Raises:
        ConfigError: the file cannot be read, something in it is wrong, or it is another model's;
            the message names the file and the place in it.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{path}: a profile has at most {MOST_BYTES} bytes")
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"the profile {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    profile = profile_from(document, f"{path}: ")
    if digest is not None and profile.digest != digest:
        raise ConfigError(
            f"{path}: digest is {profile.digest}, but the model's is {digest}: the profile was "
            "made of another model. Build it again: onnx-gateway profile build"
        )
    return profile


# -- writing ----------------------------------------------------------------------------------


def document_of(profile: Profile) -> dict[str, Any]:
    """The profile as JSON values."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": profile.model,
        "model_version": profile.version,
        "digest": profile.digest,
        "made": profile.made,
        "source": {
            "name": profile.source.name,
            "rows": profile.source.rows,
            "sha256": profile.source.sha256,
        },
        "options": profile.options,
        "rows": profile.rows,
        "tensors": [_tensor_document(layout) for layout in profile.layout.tensors],
        "features": [_feature_document(feature) for feature in profile.features],
        "sample": _packed(profile.sample.astype(np.float64)),
        "subjects": {
            name: _packed(rows.astype(np.float32)) for name, rows in profile.subjects.items()
        },
    }


def _tensor_document(layout: TensorLayout) -> dict[str, Any]:
    return {
        "side": str(layout.side),
        "tensor": layout.tensor,
        "width": layout.width,
        "text": layout.text,
        "wide": layout.wide,
        "names": list(layout.names),
        "scores": layout.scores,
        "class_name": layout.class_name,
        "labels": list(layout.labels),
    }


def _feature_document(feature: FeatureProfile) -> dict[str, Any]:
    reference = feature.reference
    document: dict[str, Any] = {
        "name": feature.name,
        "side": str(feature.side),
        "part": str(feature.part),
        "missing": feature.missing,
    }
    if isinstance(reference, CategoricalReference):
        return document | {
            "kind": "categorical",
            "text": reference.text,
            "categories": list(reference.categories),
            "counts": reference.counts.tolist(),
            "other": reference.other,
            "distinct": reference.distinct,
        }
    return document | {
        "kind": "numeric",
        "edges": reference.edges.tolist(),
        "counts": reference.counts.tolist(),
        "doane": list(reference.doane),
        "tenths": list(reference.tenths),
        "mean": reference.mean,
        "std": reference.std,
        "min": reference.minimum,
        "max": reference.maximum,
        "quantiles": dict(zip(map(str, QUANTILES), reference.quantiles, strict=True)),
    }


def _packed(rows: Array) -> dict[str, Any]:
    little = np.ascontiguousarray(rows, rows.dtype.newbyteorder("<"))
    return {
        "rows": rows.shape[0],
        "columns": rows.shape[1],
        "zlib_base64": base64.b64encode(zlib.compress(little.tobytes(), 6)).decode(),
    }


# -- reading ----------------------------------------------------------------------------------


def profile_from(document: Any, where: str = "") -> Profile:
    """The profile that JSON values describe; ``where`` goes before a key in errors.

    Raises:
        ConfigError: something is missing, unknown or wrong.
    """
    values = table(f"{where}the profile", document)
    if values.get("format") != FORMAT:
        raise wrong(f"{where}format", f'"{FORMAT}"', values.get("format"))
    if values.get("format_version") != FORMAT_VERSION:
        raise ConfigError(
            f"{where}format_version is {values.get('format_version')!r}; this gateway reads "
            f"{FORMAT_VERSION}: build the profile again"
        )
    read = _whole(where, values, _DOCUMENT)
    if read["rows"] > MOST_ROWS:
        raise wrong(f"{where}rows", f"at most {MOST_ROWS}", read["rows"])
    layout = Layout(read["tensors"])
    features = _features(where, layout, read["features"], read["rows"])
    sample = _unpacked(f"{where}sample", read["sample"], np.dtype("<f8"))
    if sample.shape[1] != len(features) or len(sample) > read["rows"]:
        raise ConfigError(
            f"{where}sample has {len(sample)} rows of {sample.shape[1]} numbers; expected at most "
            f"{read['rows']} rows of {len(features)}"
        )
    return Profile(
        model=read["model"],
        version=read["model_version"],
        digest=read["digest"],
        made=read["made"],
        source=ProfileSource(**read["source"]),
        options=read["options"],
        rows=read["rows"],
        layout=layout,
        features=features,
        sample=sample,
        subjects=_subjects(where, layout, read["subjects"], read["rows"]),
    )


def _whole(where: str, values: Mapping[str, Any], fields: Mapping[str, Check]) -> dict[str, Any]:
    """All ``fields`` of a table, each of which must be there."""
    read = read_table(values, fields, where)
    for key in fields:
        if key not in read:
            raise ConfigError(f"{where}{key} is missing")
    return read


def _features(
    where: str, layout: Layout, documents: tuple[dict[str, Any], ...], rows: int
) -> tuple[FeatureProfile, ...]:
    expected = list(layout.names())
    if len(expected) != len(documents):
        raise ConfigError(
            f"{where}features has {len(documents)} entries; the tensors have {len(expected)} "
            "features"
        )
    if len({name for name, *_ in expected}) != len(expected):
        raise ConfigError(f"{where}tensors names a feature twice")
    found = []
    for index, ((name, side, tensor, part), document) in enumerate(
        zip(expected, documents, strict=True)
    ):
        place = f"{where}features[{index}]."
        its_text = any(each.text for each in layout.tensors if each.tensor == tensor)
        if (document.get("name"), document.get("side"), document.get("part")) != (name, side, part):
            raise ConfigError(
                f"{place}name, side and part must be {name!r}, {str(side)!r} and {str(part)!r}, as "
                "the tensors say"
            )
        kind = document.get("kind")
        if kind == "categorical":
            read = _whole(place, document, _CATEGORICAL)
            reference: NumericReference | CategoricalReference = _categorical(place, read)
            if read["text"] != its_text:
                raise wrong(f"{place}text", str(its_text).lower(), read["text"])
        elif kind == "numeric" and not its_text:
            read = _whole(place, document, _NUMERIC)
            reference = _numeric(place, read)
        else:
            raise wrong(
                f"{place}kind", '"categorical"' + ("" if its_text else ' or "numeric"'), kind
            )
        counted = sum(read["counts"]) + read.get("other", 0) + read["missing"]
        if counted != rows:
            raise ConfigError(
                f"{place}counts add up to {counted} with those missing, not to the {rows} rows"
            )
        found.append(FeatureProfile(name, side, tensor, part, rows, read["missing"], reference))
    return tuple(found)


def _numeric(where: str, read: dict[str, Any]) -> NumericReference:
    edges = np.array(read["edges"], np.float64)
    if len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise ConfigError(f"{where}edges must be two or more ascending numbers")
    if len(read["counts"]) != len(edges) + 1:
        raise ConfigError(
            f"{where}counts must be {len(edges) + 1} integers, one more than edges, not "
            f"{len(read['counts'])}"
        )
    doane, tenths = read["doane"], read["tenths"]
    for key, places in (("doane", doane), ("tenths", tenths)):
        if list(places) != sorted(set(places)) or (places and places[-1] >= len(edges)):
            raise ConfigError(f"{where}{key} must be ascending places in edges, not {places}")
    if len(doane) < 2 or doane[0] != 0 or doane[-1] != len(edges) - 1:
        raise ConfigError(f"{where}doane must begin at the first edge and end at the last")
    quantiles = read["quantiles"]
    if tuple(quantiles) != tuple(map(str, QUANTILES)):
        raise ConfigError(f"{where}quantiles must be at {', '.join(map(str, QUANTILES))}")
    values = tuple(quantiles.values())
    if list(values) != sorted(values):
        raise ConfigError(f"{where}quantiles must ascend, not {list(values)}")
    if read["std"] < 0 or read["min"] > read["max"]:
        raise ConfigError(f"{where}std must be at least 0, and min at most max")
    return NumericReference(
        edges,
        np.array(read["counts"], np.int64),
        doane,
        tenths,
        read["mean"],
        read["std"],
        read["min"],
        read["max"],
        values,
    )


def _categorical(where: str, read: dict[str, Any]) -> CategoricalReference:
    categories = read["categories"]
    kind = str if read["text"] else float
    for index, category in enumerate(categories):
        if not isinstance(category, kind) or category in ("", math.inf, -math.inf):
            expected = "a text that is not empty" if read["text"] else "a finite number"
            raise wrong(f"{where}categories[{index}]", expected, category)
    if len(set(categories)) != len(categories):
        raise ConfigError(f"{where}categories has one twice")
    if len(read["counts"]) != len(categories):
        raise ConfigError(f"{where}counts must be {len(categories)} integers, one a category")
    return CategoricalReference(
        read["text"],
        categories,
        np.array(read["counts"], np.int64),
        read["other"],
        read["distinct"],
    )


def _subjects(where: str, layout: Layout, documents: dict[str, Any], rows: int) -> dict[str, Array]:
    widths = {
        each.tensor: min(each.width, MOST_SUBJECT)
        for each in layout.tensors
        if each.wide and each.width >= 0
    }
    found = {}
    for name, document in documents.items():
        place = f"{where}subjects.{name}"
        if name not in widths:
            raise ConfigError(f"{place}: there is no wide tensor of that name")
        found[name] = _unpacked(place, document, np.dtype("<f4"))
        if found[name].shape[1] > widths[name] or len(found[name]) > rows:
            raise ConfigError(f"{place} has {found[name].shape}, which is more than there was")
    return found


def _unpacked(where: str, document: Any, dtype: np.dtype[Any]) -> Array:
    read = _whole(f"{where}.", table(where, document), _PACKED)
    shape = (read["rows"], read["columns"])
    size = shape[0] * shape[1] * dtype.itemsize
    if size > MOST_ARRAY_BYTES:
        raise ConfigError(f"{where} takes {size} bytes; the most is {MOST_ARRAY_BYTES}")
    try:
        packed = base64.b64decode(read["zlib_base64"], validate=True)
        unpacker = zlib.decompressobj()
        # One byte more than there should be shows that there is more, whatever the rest is.
        data = unpacker.decompress(packed, size + 1)
    except (binascii.Error, zlib.error) as error:
        raise ConfigError(f"{where}.zlib_base64 cannot be unpacked: {error}") from error
    if len(data) != size:
        raise ConfigError(
            f"{where}.zlib_base64 must hold {size} bytes, {shape[0]} rows of {shape[1]} numbers"
        )
    return np.frombuffer(data, dtype).reshape(shape)


def _real(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise wrong(where, "a finite number", value)
    return float(value)


def _category(where: str, value: Any) -> str | float:
    return value if isinstance(value, str) else _real(where, value)


def _any_text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong(where, "text", value)
    return value


def _width(where: str, value: Any) -> int:
    return -1 if value == -1 else int(integer(1)(where, value))


def _quantiles(where: str, value: Any) -> dict[str, float]:
    return {key: _real(f"{where}.{key}", each) for key, each in table(where, value).items()}


def _tensor(where: str, value: Any) -> TensorLayout:
    read = _whole(f"{where}.", table(where, value), _TENSOR)
    names, width = read["names"], read["width"]
    expected = 2 if read["wide"] else width
    if len(names) != expected:
        raise ConfigError(f"{where}.names must be {expected} names, not {len(names)}")
    if read["scores"] != bool(read["class_name"]) or (read["scores"] and read["wide"]):
        raise ConfigError(f"{where}.class_name must name the class where there are scores")
    if read["labels"] and len(read["labels"]) != width:
        raise ConfigError(f"{where}.labels must be {width} names, or none")
    return TensorLayout(**{**read, "side": Side(read["side"])})


_COUNT: Final = integer(0)
_TENSOR: Final[dict[str, Check]] = {
    "side": choice(*Side),
    "tensor": text,
    "width": _width,
    "text": boolean,
    "wide": boolean,
    "names": list_of(text),
    "scores": boolean,
    "class_name": _any_text,
    "labels": list_of(_any_text),
}
_FEATURE: Final[dict[str, Check]] = {
    "name": text,
    "side": choice(*Side),
    "part": choice(*Part),
    "kind": choice("numeric", "categorical"),
    "missing": _COUNT,
    "counts": list_of(_COUNT),
}
_CATEGORICAL: Final[dict[str, Check]] = _FEATURE | {
    "text": boolean,
    "categories": list_of(_category),
    "other": _COUNT,
    "distinct": _COUNT,
}
_NUMERIC: Final[dict[str, Check]] = _FEATURE | {
    "edges": list_of(_real),
    "doane": list_of(_COUNT),
    "tenths": list_of(_COUNT),
    "mean": _real,
    "std": _real,
    "min": _real,
    "max": _real,
    "quantiles": _quantiles,
}
_PACKED: Final[dict[str, Check]] = {
    "rows": _COUNT,
    "columns": _COUNT,
    "zlib_base64": _any_text,
}


def _source(where: str, value: Any) -> dict[str, Any]:
    fields: dict[str, Check] = {"name": text, "rows": _COUNT, "sha256": _any_text}
    return _whole(f"{where}.", table(where, value), fields)


_DOCUMENT: Final[dict[str, Check]] = {
    "format": text,
    "format_version": _COUNT,
    "model": text,
    "model_version": text,
    "digest": text,
    "made": text,
    "source": _source,
    "options": table,
    "rows": _COUNT,
    "tensors": list_of(_tensor),
    "features": list_of(table),
    "sample": table,
    "subjects": table,
}
