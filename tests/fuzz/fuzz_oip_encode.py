"""ModelInferResponse: any answer that protobuf can read is written so that it reads the same.

The input is such an answer in protobuf's form; whatever protobuf refuses is passed over.
"""

from collections.abc import Iterator
from itertools import zip_longest

from google.protobuf.message import DecodeError

from gateway._native.oip_encode import encode_infer_response
from gateway.protos import message
from tests.native.oip_oracle import assert_says, parameters_of

ModelInferResponse = message("ModelInferResponse")
ModelStreamInferResponse = message("ModelStreamInferResponse")


def one_input(data: bytes) -> None:
    try:
        given = ModelInferResponse.FromString(data)
    except DecodeError:
        return
    raw = given.raw_output_contents[: len(given.outputs)]
    outputs = [
        (tensor.name, tensor.datatype, tuple(tensor.shape), data, parameters_of(tensor.parameters))
        for tensor, data in zip_longest(given.outputs, raw)
    ]
    answer = (
        given.model_name,
        given.model_version,
        given.id,
        parameters_of(given.parameters),
        outputs,
    )
    assert_says(ModelInferResponse.FromString(encode_infer_response(*answer)), *answer)
    wrapped = ModelStreamInferResponse.FromString(encode_infer_response(*answer, stream=True))
    assert_says(wrapped.infer_response, *answer)


def seeds() -> Iterator[tuple[str, bytes]]:
    yield "empty", b""
    response = ModelInferResponse(model_name="m", model_version="1", id="id")
    response.parameters["bool"].bool_param = True
    response.parameters["int"].int64_param = -1
    response.parameters["text"].string_param = "é"
    response.parameters["real"].double_param = 0.5
    response.parameters["huge"].uint64_param = 2**64 - 1
    yield "parameters", written(response)
    for count in (1, 4, 5):  # of which four have room on the stack
        response = ModelInferResponse(model_name="m")
        for index in range(count):
            tensor = response.outputs.add(name=f"y{index}", datatype="UINT8", shape=[index, -1])
            tensor.parameters["int"].int64_param = 2**40
            response.raw_output_contents.append(bytes(100 * index))
        yield f"outputs-{count}", written(response)
    response = ModelInferResponse(model_name="m" * 128)
    response.outputs.add(name="y" * 300, datatype="FP32").parameters["z" * 200].string_param = ""
    yield "long-names-without-data", written(response)


def written(response: ModelInferResponse) -> bytes:
    return response.SerializeToString(deterministic=True)
