"""ModelInferRequest: the codec reads, and refuses, what protobuf does."""

import struct
from collections.abc import Iterator

from gateway._native.bytes_tensor import DecodeError
from gateway._native.oip_decode import COPY_LIMIT, decode_infer_request
from tests.native.oip_oracle import (
    ODD_FIELDS,
    TYPED_FORMS,
    ModelInferRequest,
    assert_reads_as_protobuf_does,
    comparable,
)


def one_input(data: bytes) -> None:
    assert_reads_as_protobuf_does(data)
    # Any other buffer than bytes is read by a path of its own.
    assert outcome(memoryview(data)) == outcome(data)


def outcome(data: bytes | memoryview) -> object:
    try:
        return comparable(decode_infer_request(data))
    except DecodeError as error:
        return error.args


def seeds() -> Iterator[tuple[str, bytes]]:
    for datatype, (field, code) in TYPED_FORMS.items():
        request = ModelInferRequest(model_name="m")
        tensor = request.inputs.add(name="x", datatype=datatype, shape=[2])
        elements = (
            [b"a", b""]
            if code is None
            else struct.unpack(f"<2{code}", bytes(range(16))[: 2 * struct.calcsize(code)])
        )
        getattr(tensor.contents, field).extend(elements)
        yield f"typed-{datatype.lower()}", written(request)
    yield "raw", written(with_everything())
    for index, field in enumerate(ODD_FIELDS):
        yield f"odd-{index:02}", field


def with_everything() -> ModelInferRequest:
    request = ModelInferRequest(model_name="m", model_version="1", id="id")
    request.parameters["bool"].bool_param = True
    request.parameters["int"].int64_param = -1
    request.parameters["text"].string_param = "é"
    request.parameters["real"].double_param = 0.5
    request.parameters["huge"].uint64_param = 2**64 - 1
    shared = request.inputs.add(name="shared", datatype="FP32", shape=[-1, 2])
    shared.parameters["shared_memory_region"].string_param = "region"
    shared.parameters["shared_memory_byte_size"].int64_param = 8
    for size in (0, 3, COPY_LIMIT, COPY_LIMIT + 1):
        request.inputs.add(name=f"x{size}", datatype="UINT8", shape=[size])
        request.raw_input_contents.append(bytes(size))
    request.outputs.add(name="y").parameters["classification"].int64_param = 3
    return request


def written(request: ModelInferRequest) -> bytes:
    return request.SerializeToString(deterministic=True)
