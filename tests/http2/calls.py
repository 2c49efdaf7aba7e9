"""gRPC calls (gRPC over HTTP/2, "Requests" and "Responses") as header fields and messages."""

import struct
from urllib.parse import unquote_to_bytes

import numpy as np

from gateway.protos import SERVICE, message

Fields = list[tuple[bytes, bytes]]

UNARY = f"/{SERVICE}/ModelInfer"
STREAM = f"/{SERVICE}/ModelStreamInfer"
LIVE = f"/{SERVICE}/ServerLive"

OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED = 0, 1, 2, 3, 4
NOT_FOUND, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 5, 8, 12, 13, 14

#: What ``negate`` makes of a ``request`` without arguments.
RIGHT = [-1.5, 2.0]

_Request = message("ModelInferRequest")
_Response = message("ModelInferResponse")
_StreamResponse = message("ModelStreamInferResponse")
_LiveResponse = message("ServerLiveResponse")


def fields(path: str = UNARY, *more: tuple[str, str], **replaced: str | None) -> Fields:
    """A call's request fields, ``more`` at their end.

    ``replaced`` gives another value to one of them, ``method`` meaning ``:method`` and
    ``content_type`` meaning ``content-type``; ``None`` leaves it out.
    """
    usual: dict[str, str | None] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "gateway",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    for key, value in replaced.items():
        name = key.replace("_", "-")
        usual[f":{name}" if f":{name}" in usual else name] = value
    chosen = [(name, value) for name, value in usual.items() if value is not None]
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in [*chosen, *more]]


def request(
    values: object = (1.5, -2.0), *, model: str = "negate", id: str = "", pad_id_to: int = 0
) -> bytes:
    """A ModelInfer request for ``values`` as FP32; ``pad_id_to`` is a length to bring its id to."""
    array = np.asarray(values, "<f4")
    message = _Request(model_name=model, id=id.ljust(pad_id_to))
    message.inputs.add(name="x", datatype="FP32", shape=array.shape)
    message.raw_input_contents.append(array.tobytes())
    return message.SerializeToString()


def prefixed(message: bytes, compressed: int = 0) -> bytes:
    """A Length-Prefixed-Message."""
    return struct.pack(">BI", compressed, len(message)) + message


def messages_in(body: bytes) -> list[tuple[int, bytes]]:
    """The whole Length-Prefixed-Messages of ``body``: their Compressed-Flag and message."""
    found = []
    while len(body) >= 5:
        flag, size = struct.unpack(">BI", body[:5])
        if len(body) < 5 + size:
            break
        found.append((flag, body[5 : 5 + size]))
        body = body[5 + size :]
    return found


def values_of(message: bytes) -> list[float]:
    """The numbers that a ModelInfer answer holds."""
    (raw,) = _Response.FromString(message).raw_output_contents
    return np.frombuffer(raw, "<f4").tolist()


def id_of(message: bytes) -> str:
    return _Response.FromString(message).id.rstrip()


def streamed(message: bytes) -> tuple[str, bytes]:
    """A ModelStreamInfer answer's error, and the ModelInfer answer that is in it."""
    answer = _StreamResponse.FromString(message)
    return answer.error_message, answer.infer_response.SerializeToString()


def is_live(message: bytes) -> bool:
    return _LiveResponse.FromString(message).live


def text_of(grpc_message: bytes) -> str:
    """A percent-encoded Status-Message, decoded."""
    assert all(0x20 <= octet <= 0x7E for octet in grpc_message), grpc_message
    return unquote_to_bytes(grpc_message).decode()
