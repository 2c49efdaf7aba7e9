"""The binary form of BYTES tensors: the first byte is the count, the rest the tensor."""

from collections.abc import Iterator

from gateway._native.bytes_tensor import DecodeError, decode_bytes_tensor, encode_bytes_tensor


def one_input(data: bytes) -> None:
    if not data:
        return
    count, tensor = data[0], memoryview(data)[1:]
    expected = reference(bytes(tensor), count)
    elements, offset = None, 0
    try:
        elements = decode_bytes_tensor(tensor, count)
    except DecodeError as error:
        offset = error.offset
    assert elements == expected
    assert 0 <= offset <= len(tensor)
    if elements is not None:
        assert encode_bytes_tensor(elements) == tensor


def reference(tensor: bytes, count: int) -> list[bytes] | None:
    """The elements, read in the most obvious way; None where it is not exactly these many."""
    elements = []
    for _ in range(count):
        size = 4 + int.from_bytes(tensor[:4], "little")
        if len(tensor) < size:
            return None
        elements.append(tensor[4:size])
        tensor = tensor[size:]
    return None if tensor else elements


def seeds() -> Iterator[tuple[str, bytes]]:
    for name, elements in {
        "none": [],
        "empty": [b""],
        "text": [b"hello", "é".encode()],
        "many": [bytes([i]) * i for i in range(20)],
        "long": [b"x" * 300],
    }.items():
        yield name, bytes([len(elements)]) + encode_bytes_tensor(elements)
    yield "one-too-few", b"\x02\x01\0\0\0a"
    yield "one-too-many", b"\x01\x01\0\0\0a\0\0\0\0"
    yield "length-cut-short", b"\x01\x01\0\0"
    yield "element-cut-short", b"\x01\x02\0\0\0a"
    yield "longest-length", b"\x01\xff\xff\xff\xffa"
