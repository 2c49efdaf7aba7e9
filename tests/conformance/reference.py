"""What the installed ONNX Runtime itself makes of a case, in this process."""

import ctypes
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import TensorProto

from tests.conformance.cases import Case

Array = npt.NDArray[Any]


@dataclass
class Reference:
    """The outcome of a case in process.

    Attributes:
        outputs: by name; BF16 as ``ml_dtypes.bfloat16``, strings as ``object`` arrays.
        failure: why the runtime does not pass the test, ``""`` where it does.
        random: the values differ from run to run, only dtypes and shapes can be compared.
    """

    outputs: dict[str, Array] = field(default_factory=dict)
    failure: str = ""
    random: bool = False


def run_in_process(case: Case) -> Reference:
    """Load, run and judge one case; a failure is an answer, never an exception."""
    try:
        session = open_session(case)
        names = [output.name for output in session.get_outputs()]
        outputs = run_session(session, case)
        random = case.draws_random_numbers and differs_from_expected(case, outputs)
        if random:
            case.assert_shapes(outputs)
        else:
            case.assert_expected(outputs)
    except Exception as error:
        return Reference(failure=first_line(error))
    return Reference(dict(zip(names, outputs, strict=True)), random=random)


def open_session(case: Case) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(
        case.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_session(session: ort.InferenceSession, case: Case) -> list[Array]:
    types = {value.type for value in (*session.get_inputs(), *session.get_outputs())}
    if "tensor(bfloat16)" not in types:
        return session.run(None, case.inputs)
    # ONNX Runtime's numpy interface lacks BF16, its OrtValue interface lacks strings.
    feeds = {name: to_ort_value(array) for name, array in case.inputs.items()}
    return [from_ort_value(value) for value in session.run_with_ort_values(None, feeds)]


def differs_from_expected(case: Case, outputs: list[Array]) -> bool:
    try:
        case.assert_expected(outputs)
    except AssertionError:
        return True
    return False


def to_ort_value(array: Array) -> ort.OrtValue:
    if array.dtype == ml_dtypes.bfloat16:
        bits = np.ascontiguousarray(array).view(np.uint16)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, TensorProto.BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array)


def from_ort_value(value: ort.OrtValue) -> Array:
    if value.data_type() != "tensor(bfloat16)":
        return value.numpy()
    size = value.tensor_size_in_bytes()
    data = ctypes.string_at(value.data_ptr(), size) if size else b""
    return np.frombuffer(data, ml_dtypes.bfloat16).reshape(value.shape())


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
