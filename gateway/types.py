"""The values that travel between a front and a model: data types, tensors, requests, answers.

They are plain slotted classes, made once a request on the hot path; nothing here validates
against a model (``serving/signature.py`` does) or knows a wire format (``front`` does).
"""

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from gateway.errors import GatewayError

Array: TypeAlias = npt.NDArray[Any]
Parameters: TypeAlias = dict[str, bool | int | float | str]


#: A longer timeout, in microseconds, is as good as this one, of 146 years, and would overflow the
#: core's clock.
MAX_TIMEOUT_US: Final = 2**62 // 1000


class DataType:
    """A tensor element type of the Open Inference Protocol.

    Attributes:
        name: the protocol's name, e.g. ``"FP32"``.
        numpy: the numpy dtype that holds it in memory, little-endian. BF16, which numpy lacks, is
            held bit for bit as ``uint16``; BYTES is ``object`` (elements ``bytes`` or ``str``).
        itemsize: bytes of one element on the wire; 0 for BYTES, whose elements vary.
        onnx: the value of ``onnx.TensorProto.DataType``.
    """

    __slots__ = ("itemsize", "name", "numpy", "onnx")

    def __init__(self, name: str, dtype: npt.DTypeLike, onnx: int) -> None:
        self.name: Final = name
        self.numpy: Final[np.dtype[Any]] = np.dtype(dtype)
        self.itemsize: Final = 0 if self.numpy.hasobject else self.numpy.itemsize
        self.onnx: Final = onnx

    def __repr__(self) -> str:
        return f"DataType({self.name})"


BOOL = DataType("BOOL", np.bool_, 9)
UINT8 = DataType("UINT8", np.uint8, 2)
UINT16 = DataType("UINT16", np.uint16, 4)
UINT32 = DataType("UINT32", np.uint32, 12)
UINT64 = DataType("UINT64", np.uint64, 13)
INT8 = DataType("INT8", np.int8, 3)
INT16 = DataType("INT16", np.int16, 5)
INT32 = DataType("INT32", np.int32, 6)
INT64 = DataType("INT64", np.int64, 7)
FP16 = DataType("FP16", np.float16, 10)
FP32 = DataType("FP32", np.float32, 1)
FP64 = DataType("FP64", np.float64, 11)
BF16 = DataType("BF16", np.uint16, 16)
BYTES = DataType("BYTES", np.object_, 8)

#: Every data type by its protocol name.
DATATYPES: Final[dict[str, DataType]] = {
    datatype.name: datatype
    for datatype in (
        BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64,
        FP16, FP32, FP64, BF16, BYTES,
    )
}  # fmt: skip

#: Every data type by its ``onnx.TensorProto.DataType``.
DATATYPES_BY_ONNX: Final[dict[int, DataType]] = {d.onnx: d for d in DATATYPES.values()}


class InferInput:
    """One input tensor of a request.

    ``data`` is either the tensor's raw little-endian bytes in row-major order (``bytes`` or a flat
    ``memoryview`` of format ``B``, whose size nobody has checked yet) or, always for BYTES, a
    C-contiguous ``ndarray`` of dtype ``datatype.numpy`` and shape ``shape``. It must stay
    unchanged until the request is answered; the core holds a reference for that long.
    """

    __slots__ = ("data", "datatype", "name", "shape")

    def __init__(
        self,
        name: str,
        datatype: DataType,
        shape: tuple[int, ...],
        data: bytes | memoryview | Array,
    ) -> None:
        self.name = name
        self.datatype = datatype
        self.shape = shape
        self.data = data

    def array(self) -> Array:
        """The tensor as an ``ndarray`` of ``shape``, a view where that is possible."""
        if isinstance(self.data, np.ndarray):
            return self.data
        return np.frombuffer(self.data, self.datatype.numpy).reshape(self.shape)

    def __repr__(self) -> str:
        return f"InferInput({self.name!r}, {self.datatype.name}, {list(self.shape)})"


class RequestedOutput:
    """An output that the caller asked for by name.

    ``class_count`` above 0 asks for the classification form: the top k as BYTES elements
    ``"value:index[:label]"``.
    """

    __slots__ = ("class_count", "name")

    def __init__(self, name: str, class_count: int = 0) -> None:
        self.name = name
        self.class_count = class_count


class Metadata(Protocol):
    """What came with a request beside it: HTTP headers or gRPC metadata."""

    def get(self, name: bytes, /) -> bytes | None:
        """The value under ``name``, which is lower case; ``None`` where there is none."""


class InferRequest:
    """One inference request, decoded.

    Attributes:
        model: the model's name.
        version: the version asked for, or ``""`` for the one that the route gives.
        id: the caller's request id, echoed in the answer; ``""`` where there is none.
        inputs: the input tensors, in the caller's order.
        outputs: the outputs asked for, in order; ``None`` for all of them.
        parameters: request parameters that mean something to routing or batching (``priority``,
            ``timeout``, ``sequence_id`` …); tensors' own wire parameters stay in the front.
        deadline_ns: monotonic nanoseconds after which nobody waits for the answer; 0 for never.
        received_ns: monotonic nanoseconds at which the front had the whole request; the total
            latency counts from here.
        metadata: what came with it, ``None`` where the front has none to give.
    """

    __slots__ = (
        "deadline_ns", "id", "inputs", "metadata", "model", "outputs", "parameters", "received_ns",
        "version",
    )  # fmt: skip

    def __init__(
        self,
        model: str,
        version: str,
        id: str,
        inputs: list[InferInput],
        outputs: list[RequestedOutput] | None,
        parameters: Parameters,
        deadline_ns: int,
        received_ns: int,
        metadata: Metadata | None = None,
    ) -> None:
        self.model = model
        self.version = version
        self.id = id
        self.inputs = inputs
        self.outputs = outputs
        self.parameters = parameters
        self.deadline_ns = deadline_ns
        self.received_ns = received_ns
        self.metadata = metadata


class InferOutput:
    """One output tensor of an answer.

    ``array`` is C-contiguous with dtype ``datatype.numpy`` and shape ``shape``. It may be a view
    of a buffer that the next batch overwrites: it is valid until the reply callback returns, and
    whoever keeps it longer copies it. BYTES elements are ``str`` or ``bytes``.
    """

    __slots__ = ("array", "datatype", "name")

    def __init__(self, name: str, datatype: DataType, array: Array) -> None:
        self.name = name
        self.datatype = datatype
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.array.shape

    def __repr__(self) -> str:
        return f"InferOutput({self.name!r}, {self.datatype.name}, {list(self.shape)})"


class InferResponse:
    """One answer: ``version`` is the version that made it, ``id`` the request's own."""

    __slots__ = ("id", "model", "outputs", "version")

    def __init__(self, model: str, version: str, id: str, outputs: list[InferOutput]) -> None:
        self.model = model
        self.version = version
        self.id = id
        self.outputs = outputs


#: Called once for each accepted request, on the event loop's thread, with its answer or error.
Reply: TypeAlias = Callable[[InferResponse | GatewayError], None]
