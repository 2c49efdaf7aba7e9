"""Golden requests: what a model was asked once and must answer again, read from files and recorded.

They lie in ``golden/`` beside a version's model, and beside the versions for all of them. A
``.json`` file is a request and its response in the protocol's JSON form, in one object; a ``.npz``
file has an array ``input:NAME`` or ``output:NAME`` for each tensor. ``serving/replay.py`` replays
them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from gateway.errors import ConfigError, InvalidTensor, LoadError
from gateway.serving.settings import ModelSettings
from gateway.serving.signature import Signature
from gateway.serving.tensor_json import array_from_json, tensor_document
from gateway.tables import Check, integer, list_of, number, read_table, table, text, wrong
from gateway.types import (
    BF16,
    BYTES,
    DATATYPES,
    UINT16,
    Array,
    DataType,
    InferInput,
    InferOutput,
    InferRequest,
    InferResponse,
)

#: The kinds of files that are read; others beside them are left alone.
SUFFIXES: Final = (".json", ".npz")

_BY_DTYPE: Final = {d.numpy: d for d in DATATYPES.values() if d not in (BF16, BYTES)}
_IN_NPZ: Final = "input:NAME, output:NAME, relative and absolute"


@dataclass(frozen=True, slots=True)
class GoldenRequest:
    """A request, and what its answer must be.

    Attributes:
        outputs: those that are compared; the model may have others.
        relative, absolute: a floating-point value ``e`` may be given as ``g`` where
            ``|e - g| <= absolute + relative * |e|``; ``None`` leaves it to the data type.
        id: the request's own, ``""`` where it has none.
    """

    inputs: tuple[InferInput, ...]
    outputs: tuple[InferOutput, ...]
    relative: float | None = None
    absolute: float | None = None
    id: str = ""


def golden_files(path: Path, settings: ModelSettings) -> tuple[Path, ...]:
    """The golden requests for the version at ``path``, in the order of their names.

    A version's own file goes before the model's of the same name.

    Raises:
        LoadError: there are none, and the settings require some.
    """
    checks = settings.validation
    if not checks.golden or settings.golden is None:
        folders = []
    else:
        folders = [settings.golden, path.parent / settings.golden.name]
    files = {
        file.name: file
        for folder in folders
        if folder.is_dir()
        for file in folder.iterdir()
        if file.suffix in SUFFIXES and not file.name.startswith(".")
    }
    if checks.require_golden and not files:
        places = " or ".join(str(folder) for folder in reversed(folders)) or "a model's directory"
        raise LoadError(
            f"it has no golden requests, and `validation.require_golden` asks for some: put .json"
            f" or .npz files into {places}"
        )
    return tuple(files[name] for name in sorted(files))


def read_golden(path: Path, signature: Signature | None = None) -> GoldenRequest:
    """The golden request in a ``.json`` or ``.npz`` file.

    Args:
        signature: the model's; tells the ``uint16`` arrays of an ``.npz`` that are BF16 bit for
            bit from those that are UINT16.

    Raises:
        LoadError: the file cannot be read, or a key in it is wrong; the message names both.
    """
    try:
        golden = _from_npz(path, signature) if path.suffix == ".npz" else _from_json(path)
        if not golden.outputs:
            raise ConfigError(f"{path}: there are no outputs: what should the answer be?")
    except ConfigError as error:
        raise LoadError(str(error)) from error
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {error.strerror or error}") from error
    return golden


def golden_document(request: InferRequest, response: InferResponse) -> dict[str, Any]:
    """A request and its response as a golden request in JSON form; ``read_golden`` reads it.

    All elements are copied, so it may be called with the arrays of a reply that are valid only
    until its callback returns. Outputs that were asked for as classifications are left out: they
    are not what the model gives.

    Raises:
        InvalidTensor: a tensor has no JSON form, or no output is left.
    """
    classified = {wanted.name for wanted in request.outputs or () if wanted.class_count}
    outputs = [output for output in response.outputs if output.name not in classified]
    if not outputs:
        raise InvalidTensor(
            "a request whose outputs are all classifications makes no golden request: ask for the"
            " scores themselves"
        )
    return {
        **({"id": request.id} if request.id else {}),
        "model_name": response.model,
        "model_version": response.version,
        "inputs": [
            tensor_document(tensor.name, tensor.datatype, tensor.array())
            for tensor in request.inputs
        ],
        "outputs": [
            tensor_document(output.name, output.datatype, output.array) for output in outputs
        ],
    }


# -- JSON -------------------------------------------------------------------------------------


def _from_json(path: Path) -> GoldenRequest:
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    where = f"{path}: "
    values = read_table(table(f"{where}the golden request", document), _DOCUMENT, where)
    for key in ("inputs", "outputs"):
        if key not in values:
            raise ConfigError(f"{where}{key} is missing: a list of tensors")
    tensors = {
        key: [(t["name"], t["datatype"], t["data"]) for t in values[key]]
        for key in ("inputs", "outputs")
    }
    return _golden(where, tensors, values.get("tolerance", {}), values.get("id") or "")


def _golden(
    where: str,
    tensors: dict[str, list[tuple[str, DataType, Array]]],
    tolerance: dict[str, float],
    id: str = "",
) -> GoldenRequest:
    for key, given in tensors.items():
        names = [name for name, _, _ in given]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"{where}{key} must have each tensor once; repeated {repeated}")
    return GoldenRequest(
        tuple(InferInput(name, kind, data.shape, data) for name, kind, data in tensors["inputs"]),
        tuple(InferOutput(name, kind, data) for name, kind, data in tensors["outputs"]),
        tolerance.get("relative"),
        tolerance.get("absolute"),
        id,
    )


def _tensor(where: str, value: Any) -> dict[str, Any]:
    read = read_table(table(where, value), _TENSOR, f"{where}.")
    for key in ("name", "datatype", "shape", "data"):
        if key not in read:
            raise ConfigError(f"{where}.{key} is missing")
    data = array_from_json(f"{where}.data", read["datatype"], read["shape"], read["data"])
    return {**read, "data": data}


def _datatype(where: str, value: Any) -> DataType:
    found = DATATYPES.get(value) if isinstance(value, str) else None
    if found is None:
        raise wrong(where, f"one of {', '.join(DATATYPES)}", value)
    return found


def _tolerance(where: str, value: Any) -> dict[str, Any]:
    return read_table(table(where, value), {"relative": number, "absolute": number}, f"{where}.")


def _id(where: str, value: Any) -> str:
    return "" if value is None or value == "" else str(text(where, value))


def _anything(where: str, value: Any) -> Any:
    """Part of a request or response that was pasted, and of no meaning here."""
    return value


_TENSOR: Final[dict[str, Check]] = {
    "name": text,
    "datatype": _datatype,
    "shape": list_of(integer(0)),
    "data": _anything,
    "parameters": _anything,
}
_DOCUMENT: Final[dict[str, Check]] = {
    "id": _id,
    "inputs": list_of(_tensor),
    "outputs": list_of(_tensor),
    "tolerance": _tolerance,
    "model_name": _anything,
    "model_version": _anything,
    "parameters": _anything,
}


# -- NPZ --------------------------------------------------------------------------------------


def _from_npz(path: Path, signature: Signature | None) -> GoldenRequest:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except OSError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{path} cannot be read as a .npz of plain arrays (text as numpy str): {error}"
        ) from error
    bits = _brain_floats(signature)
    tensors: dict[str, list[tuple[str, DataType, Array]]] = {"inputs": [], "outputs": []}
    tolerance: dict[str, float] = {}
    for key, array in arrays.items():
        where = f"{path}: {key}"
        kind, _, name = key.partition(":")
        if key in ("relative", "absolute"):
            value = array.item() if array.size == 1 else array.tolist()
            tolerance[key] = number(where, value)
        elif kind in ("input", "output") and name:
            tensors[f"{kind}s"].append((name, *_typed(where, array, name in bits)))
        else:
            raise ConfigError(f"{path}: unknown array {key!r}; known are {_IN_NPZ}")
    return _golden(f"{path}: ", tensors, tolerance)


def _brain_floats(signature: Signature | None) -> set[str]:
    if signature is None:
        return set()
    return {s.name for s in (*signature.inputs, *signature.outputs) if s.datatype is BF16}


def _typed(where: str, array: Array, bits: bool) -> tuple[DataType, Array]:
    if array.dtype.kind in "US":
        return BYTES, _decoded(where, array)
    datatype = _BY_DTYPE.get(array.dtype)
    if datatype is None:
        raise ConfigError(f"{where} is {array.dtype}, which the protocol does not have")
    contiguous = np.ascontiguousarray(array).reshape(array.shape)
    return BF16 if bits and datatype is UINT16 else datatype, contiguous


def _decoded(where: str, array: Array) -> Array:
    try:
        return (np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array).astype(object)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is not UTF-8 ({error}); ONNX strings are") from error
