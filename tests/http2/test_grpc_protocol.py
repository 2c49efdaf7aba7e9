"""gRPC over HTTP/2 ("PROTOCOL-HTTP2"): requests, messages and the status of an answer."""

import random

import pytest

from tests.http2 import calls, frames
from tests.http2.calls import prefixed
from tests.http2.frames import Code

BODY = prefixed(calls.request())

#: The server's limit, as ``tests.front.grpc_server`` sets it.
LIMIT = 1 << 20


def trailers_only(answer) -> bool:
    """A status and no message: one HEADERS frame, which ends the stream."""
    return answer.ended and len(answer.blocks) == 1 and not answer.data_frames


# ---- Requests: the fields ----


@pytest.mark.parametrize(
    "content_type",
    [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc;charset=utf-8",
        "application/grpc+proto; a=b",
    ],
)
def test_calls_are_known_by_their_content_type(peer, content_type):
    """Content-Type: "application/grpc", and what may follow it."""
    answer = peer.answer(peer.call(BODY, calls.fields(content_type=content_type)))
    assert answer.values() == calls.RIGHT


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/json", "application/grp", "application/grpcs",
     "application/grpc-web", "application/grpc-web+proto", "a/b;application/grpc"],
)  # fmt: skip
def test_other_content_types_are_415(peer, content_type):
    """Content-Type: servers SHOULD respond with HTTP status 415 (Unsupported Media Type)."""
    answer = peer.answer(peer.call(BODY, calls.fields(content_type=content_type)))
    assert answer.ended
    assert answer.http_status == 415
    peer.expect_alive()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/inference.GRPCInferenceService",
        "/inference.GRPCInferenceService/",
        "/inference.GRPCInferenceService/NoSuchCall",
        "/inference.GRPCInferenceService/modelinfer",
        "/inference.GRPCInferenceService/ModelInfer/",
        "/inference.GRPCInferenceService/ModelInfer?x=1",
        "/nobody.Service/ModelInfer",
        "//inference.GRPCInferenceService/ModelInfer",
        "/v2/health/ready",
        "/" + "a" * 1000,
    ],
)
def test_an_unknown_path_is_unimplemented(peer, path):
    """Trailers-Only: the status comes with the only HEADERS."""
    answer = peer.answer(peer.call(BODY, calls.fields(path)))
    assert trailers_only(answer), answer
    assert answer.http_status == 200
    assert answer.field("content-type").startswith("application/grpc")
    assert answer.grpc_status == calls.UNIMPLEMENTED
    peer.expect_alive()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user-agent", "grpc-python/1.0 (tests)"),
        ("grpc-message-type", "inference.ModelInferRequest"),
        ("grpc-accept-encoding", "identity,deflate,gzip, br"),
        ("grpc-previous-rpc-attempts", "3"),
        ("grpc-unheard-of", "1"),
        ("authorization", "Bearer of news"),
        ("x-empty", ""),
        ("x-trace-bin", "AAEC/w=="),
        ("x-trace-bin", "AAEC/w"),
        ("x-trace-bin", "AAEC/w,BBBB,CCA="),
        ("x-trace-bin", ""),
    ],
)
def test_metadata_costs_nothing(peer, name, value):
    """Custom-Metadata; -bin values come padded and unpadded, several in one field."""
    answer = peer.answer(peer.call(BODY, calls.fields(calls.UNARY, (name, value))))
    assert answer.values() == calls.RIGHT


@pytest.mark.parametrize("value", ["not base64!", "A", "====", "AA\x80A"])
def test_binary_metadata_that_is_none_harms_nobody(peer, value):
    """Whether the call fails for it is the server's choice."""
    answer = peer.answer(peer.call(BODY, calls.fields(calls.UNARY, ("x-trace-bin", value))))
    assert answer.over
    peer.expect_alive()


# ---- Responses ----


def test_an_answer_has_fields_a_message_and_trailers(peer):
    """Response: Response-Headers, Length-Prefixed-Messages, Trailers."""
    answer = peer.answer(peer.call())
    head, trailers = map(dict, answer.blocks)
    assert head[b":status"] == b"200"
    assert head[b"content-type"].startswith(b"application/grpc")
    assert b"grpc-status" not in head
    assert trailers[b"grpc-status"] == b"0"
    ((compressed, message),) = calls.messages_in(answer.data)
    assert len(answer.data) == 5 + len(message)
    assert compressed == 0
    assert calls.values_of(message) == calls.RIGHT


@pytest.mark.parametrize("model", ["nobody", "fail"])
def test_an_error_is_a_status_in_the_only_headers(peer, model):
    """Trailers-Only, where an error comes before any message."""
    answer = peer.answer(peer.call(prefixed(calls.request(model=model))))
    assert trailers_only(answer), answer
    assert answer.http_status == 200
    assert answer.grpc_status == {"nobody": calls.NOT_FOUND, "fail": calls.INTERNAL}[model]
    peer.expect_alive()


@pytest.mark.parametrize(
    "model",
    [
        "naïve",
        "模型",
        "100%",
        "%41",
        "two\nlines",
        "\r\n",
        "tab\t",
        "\x7f",
        "\0",
        "🧠",
        "sp ace ",
        '"',
    ],
)
def test_the_status_message_is_percent_encoded(peer, model):
    """Status-Message: all but 0x20-0x24 and 0x26-0x7e of its UTF-8 is percent-encoded."""
    answer = peer.answer(peer.call(prefixed(calls.request(model=model))))
    assert answer.grpc_status == calls.NOT_FOUND
    # Its decoding asserts that nothing else is there.
    assert answer.grpc_message == f'unknown model "{model}"'
    encoded = answer.field("grpc-message")
    assert "%25" in encoded if "%" in model else "%" in encoded or model.isprintable()
    peer.expect_alive()


def test_an_early_answer_asks_for_no_more(peer):
    """RFC 9113, 8.1: RST_STREAM with NO_ERROR after an answer that needs no more of the request."""
    stream = peer.start(calls.fields("/nobody/Call"))
    answer = peer.answer(stream)
    assert answer.ended
    assert answer.grpc_status == calls.UNIMPLEMENTED
    peer.until(lambda: answer.reset is not None, "RST_STREAM")
    assert answer.reset == Code.NO_ERROR
    # What was on its way is no error.
    peer.send(frames.data(stream, BODY), frames.data(stream, BODY, end=True))
    peer.expect_alive()


# ---- Messages in frames ----


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_a_message_may_be_cut_anywhere(peer, size):
    """DATA frame boundaries have no relation to Length-Prefixed-Message boundaries."""
    stream = peer.start()
    for start in range(0, len(BODY), size):
        peer.send(frames.data(stream, BODY[start : start + size]))
    peer.send(frames.data(stream, end=True))
    assert peer.answer(stream).values() == calls.RIGHT


def test_a_message_may_be_cut_with_padding_amid(peer):
    """Padding is of the frames: no message has it."""
    stream = peer.start()
    for i, octet in enumerate(BODY):
        peer.send(frames.data(stream, bytes([octet]), pad=i, end=i + 1 == len(BODY)))
    assert peer.answer(stream).values() == calls.RIGHT


@pytest.mark.parametrize("seed", range(4))
def test_a_large_message_may_be_cut_anywhere(peer, seed):
    chance = random.Random(seed)
    values = [float(i) for i in range(100_000)]
    body = prefixed(calls.request(values))
    stream, sent = peer.start(), 0
    while sent < len(body):
        size = chance.choice([1, 5, 100, 16_384, 16_384, 16_384])
        part = body[sent : sent + size]
        peer.upload(stream, part, end=sent + size >= len(body))
        sent += size
    assert peer.answer(stream).values() == [-value for value in values]


def test_calls_are_interleaved(peer):
    """RFC 9113, 5: frames of streams come in turns, an octet of each at a time."""
    streams = [peer.start() for _ in range(10)]
    bodies = [prefixed(calls.request([float(stream)] * 3)) for stream in streams]
    for i in range(len(bodies[0])):
        for stream, body in zip(streams, bodies, strict=True):
            peer.send(frames.data(stream, body[i : i + 1], end=i + 1 == len(body)))
    for stream in streams:
        assert peer.answer(stream).values() == [-float(stream)] * 3


def test_an_empty_message_is_a_message(peer):
    """A length of 0: a request without a model's name, which is not there."""
    answer = peer.answer(peer.call(prefixed(b"")))
    assert answer.grpc_status == calls.NOT_FOUND
    assert answer.grpc_message == 'unknown model ""'


def test_bytes_that_are_no_request_are_the_callers_fault(peer):
    answer = peer.answer(peer.call(prefixed(b"\x0a\xff\x01")))
    assert answer.grpc_status == calls.INVALID_ARGUMENT
    peer.expect_alive()


@pytest.mark.parametrize(
    "body", [b"", BODY + BODY, BODY[:3], BODY[:-1], BODY + b"\0", BODY + b"\0\0\0\0\0"],
    ids=["none", "two", "half a prefix", "half a message", "one and a bit", "one and an empty one"],
)  # fmt: skip
def test_a_unary_call_has_one_message(peer, body):
    """Request: exactly one Length-Prefixed-Message for these calls, whole."""
    answer = peer.answer(peer.call(body))
    assert answer.ended
    assert answer.grpc_status in (calls.INTERNAL, calls.INVALID_ARGUMENT, calls.UNIMPLEMENTED)
    peer.expect_alive()


# ---- the limit of a message ----


def test_a_message_of_the_limit_is_taken(peer):
    values = [1.0] * 262_000
    message = calls.request(values)
    message = calls.request(values, id="a" * (LIMIT - len(message) - 3))
    assert len(message) == LIMIT
    stream = peer.start()
    peer.upload(stream, prefixed(message))
    assert peer.answer(stream).values() == [-1.0] * 262_000


@pytest.mark.parametrize("over", [1, LIMIT, 2**32 - 1 - LIMIT], ids=["by 1", "twofold", "4 GB"])
def test_a_message_over_the_limit_is_refused_before_it_is_sent(peer, over):
    """The prefix says it all. The rest may be on its way, and is thrown away."""
    stream = peer.start()
    peer.send(frames.data(stream, b"\0" + (LIMIT + over).to_bytes(4, "big") + bytes(1000)))
    answer = peer.answer(stream)
    assert answer.grpc_status == calls.RESOURCE_EXHAUSTED
    assert "--max-request-bytes" in answer.grpc_message
    assert str(LIMIT + over) in answer.grpc_message
    for _ in range(3):
        peer.send(frames.data(stream, bytes(10_000)))
    peer.send(frames.data(stream, end=True))
    peer.expect_alive()


@pytest.mark.parametrize("calls_before", [0, 3])
def test_a_message_over_the_limit_is_no_other_calls_affair(peer, calls_before):
    others = [peer.start() for _ in range(calls_before)]
    stream = peer.start()
    peer.send(frames.data(stream, b"\0\xff\xff\xff\xff"))
    for other in others:
        peer.send(frames.data(other, BODY, end=True))
    for other in others:
        assert peer.answer(other).values() == calls.RIGHT
    assert peer.answer(stream).grpc_status == calls.RESOURCE_EXHAUSTED
