"""The head of a ModelInferRequest: the parts are the message again, and a usual message has them.

The answer to a request with a known head is made without reading that head, so nothing of the
message may be in no part, or in the wrong one.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError

from gateway._native.oip_head import split
from tests.fuzz.fuzz_oip_decode import with_everything, written
from tests.native.oip_oracle import ODD_FIELDS, ModelInferRequest

#: What a head may be and have, as ``oip_head`` has it.
LONGEST_HEAD = 4096
MOST_RAW = 16


def one_input(data: bytes) -> None:
    parts = split(data)
    if parts is not None:
        head, id, raws = parts
        assert 0 < len(raws) <= MOST_RAW
        assert len(head) <= LONGEST_HEAD
        again = read(head + field(3, id) + b"".join(field(7, raw) for raw in raws))
        # As bytes: a message with a NaN is not equal to itself.
        assert again == read(data) or written(again) == written(read(data))
    request = read(data)
    if request is None:
        return
    if parts is not None:
        assert (request.id.encode(), list(request.raw_input_contents)) == (id, raws)
    request.DiscardUnknownFields()
    usual = written(request)
    raws = list(request.raw_input_contents)
    id = request.id.encode()
    request.ClearField("id")
    request.ClearField("raw_input_contents")
    head = written(request)
    fits = 0 < len(raws) <= MOST_RAW and len(head) <= LONGEST_HEAD
    assert split(usual) == ((head, id, raws) if fits else None)


def read(message: bytes) -> Any:
    """The message as protobuf reads it; ``None`` where it refuses."""
    try:
        return ModelInferRequest.FromString(message)
    except DecodeError:
        return None


def field(number: int, content: bytes) -> bytes:
    """A delimited field."""
    size, length = len(content), bytearray([number << 3 | 2])
    while size >= 0x80:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(length) + bytes([size]) + content


def seeds() -> Iterator[tuple[str, bytes]]:
    request = ModelInferRequest(model_name="m", id="id")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(bytes(8))
    yield "usual", written(request)
    yield "without-an-id", written(request).replace(b"\x1a\x02id", b"")
    yield "an-empty-id", written(request).replace(b"\x1a\x02id", b"\x1a\x00")
    yield "two-ids", written(request).replace(b"\x1a\x02id", b"\x1a\x02id" * 2)
    yield "a-name-behind-the-id", b"\x1a\x02id\x0a\x01m\x3a\x00"
    yield "the-id-alone", b"\x1a\x02id\x3a\x00"
    yield "a-long-length", b"\x0a\x81\x80\x80\x80\x00m\x3a\x00"
    yield "too-long-a-length", b"\x0a\x81\x80\x80\x80\x80\x00m\x3a\x00"
    yield "cut-in-a-length", b"\x0a\x01m\x3a\x80"
    yield "another-number", b"\x0a\x01m\x38\x01\x3a\x00"
    yield "everything", written(with_everything())
    for count in (MOST_RAW, MOST_RAW + 1):
        yield f"raw-{count}", b"\x0a\x01m" + field(7, b"r") * count
    for size in (LONGEST_HEAD - 3, LONGEST_HEAD - 2):
        yield f"head-{size + 3}", field(1, b"m" * size) + field(7, b"r")
    yield "odd", ODD_FIELDS[0] + field(7, b"r")
