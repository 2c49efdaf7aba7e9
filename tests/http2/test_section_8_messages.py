"""RFC 9113, sections 8.1 and 8.3: how frames make a message, and its control data."""

import pytest

from tests.http2 import calls, frames
from tests.http2.calls import prefixed
from tests.http2.frames import Code

BODY = prefixed(calls.request())


def ask(peer, fields) -> int:
    """A request that is right but for its ``fields``."""
    return peer.call(BODY, fields)


# ---- 8.1, message framing ----


def test_a_request_may_have_trailers(peer):
    """8.1: one HEADERS frame with END_STREAM after the content."""
    stream = peer.start()
    trailers = peer.block([(b"x-checksum", b"0"), (b"grpc-unknown", b"1")])
    peer.send(frames.data(stream, BODY), frames.headers(stream, trailers, end=True))
    assert peer.answer(stream).values() == calls.RIGHT


def test_a_request_may_have_empty_trailers(peer):
    """6.2: a field block may be empty."""
    stream = peer.start()
    peer.send(frames.data(stream, BODY), frames.headers(stream, b"", end=True))
    assert peer.answer(stream).values() == calls.RIGHT


@pytest.mark.parametrize("body", [b"", BODY[:7], BODY])
def test_a_second_header_section_has_to_end_the_stream(peer, body):
    """8.1: HEADERS without END_STREAM after the first ones make the request malformed."""
    stream = peer.start(calls.fields(calls.STREAM))
    if body:
        peer.send(frames.data(stream, body))
    peer.send(frames.headers(stream, peer.block([(b"x-middle", b"1")])))
    peer.expect_refused_message(stream)


def test_a_second_request_on_a_stream_is_malformed(peer):
    """8.1 and 8.3: a stream carries one request; its fields again are no trailers."""
    stream = peer.start(calls.fields(calls.STREAM))
    peer.send(frames.headers(stream, peer.block(calls.fields(calls.STREAM)), end=True))
    peer.expect_refused_message(stream)


@pytest.mark.parametrize("name", [":path", ":method", ":status", ":other"])
def test_trailers_have_no_pseudo_header_fields(peer, name):
    """8.1: pseudo-header fields MUST NOT appear in trailers."""
    stream = peer.start()
    trailers = peer.block([(b"x-one", b"1"), (name.encode(), b"/")])
    peer.send(frames.data(stream, BODY), frames.headers(stream, trailers, end=True))
    peer.expect_refused_message(stream)


def test_trailers_keep_the_rules_of_fields(peer):
    """8.2.1 holds for trailers as well."""
    stream = peer.start()
    trailers = peer.block([(b"X-Upper", b"1")])
    peer.send(frames.data(stream, BODY), frames.headers(stream, trailers, end=True))
    peer.expect_refused_message(stream)


@pytest.mark.parametrize("where", ["data", "trailers"])
def test_nothing_follows_the_end(held, peer, where):
    """8.1: after END_STREAM the stream is half-closed; more is a STREAM_CLOSED error."""
    stream = peer.start()
    peer.send(frames.data(stream, BODY))
    if where == "data":
        peer.send(frames.data(stream, end=True), frames.data(stream, b"more"))
    else:
        trailers = peer.block([(b"x-one", b"1")])
        peer.send(frames.headers(stream, trailers, end=True), frames.data(stream, b"more"))
    peer.expect_stream_error(stream, Code.STREAM_CLOSED)


# ---- 8.3, HTTP control data ----


def reordered(fields, *, last):
    """``fields`` with those named ``last`` behind all others."""
    return [f for f in fields if f[0] != last] + [f for f in fields if f[0] == last]


@pytest.mark.parametrize("name", [b":method", b":scheme", b":path", b":authority"])
def test_pseudo_header_fields_come_first(peer, name):
    """8.3: a pseudo-header field after a regular one makes the request malformed."""
    peer.expect_refused_message(ask(peer, reordered(calls.fields(), last=name)))


@pytest.mark.parametrize("name", ["method", "scheme", "path"])
def test_a_request_has_its_pseudo_header_fields(peer, name):
    """8.3.1: :method, :scheme and :path MUST be there, once."""
    peer.expect_refused_message(ask(peer, calls.fields(**{name: None})))


@pytest.mark.parametrize("name", [b":method", b":scheme", b":path", b":authority"])
def test_a_pseudo_header_field_comes_once(peer, name):
    """8.3: the same pseudo-header field name MUST NOT appear more than once."""
    fields = calls.fields()
    value = dict(fields)[name]
    peer.expect_refused_message(ask(peer, [(name, value), *fields]))


@pytest.mark.parametrize("name", [b":status", b":other", b":", b":Method", b":protocol"])
def test_other_pseudo_header_fields_are_malformed(peer, name):
    """8.3: undefined ones, and those of responses. :protocol is RFC 8441's, to be agreed on."""
    peer.expect_refused_message(ask(peer, [(name, b"200"), *calls.fields()]))


def test_the_path_is_not_empty(peer):
    """8.3.1: :path MUST NOT be empty for http and https."""
    peer.expect_refused_message(ask(peer, calls.fields("")))


@pytest.mark.parametrize("path", ["inference", "*", "http://gateway/path", "/ /", "/\x80"])
def test_a_strange_path_leads_nowhere(peer, path):
    """8.3.1: a path begins with "/"; gRPC: a method that is not there is UNIMPLEMENTED."""
    peer.expect_refused_message(ask(peer, calls.fields(path)))


def test_the_authority_may_be_left_out(peer):
    """8.3.1: :authority is not obligatory, ``host`` may stand in for it."""
    fields = [*calls.fields(authority=None), (b"host", b"gateway")]
    assert peer.answer(ask(peer, fields)).values() == calls.RIGHT


def test_pseudo_header_fields_come_in_any_order(peer):
    """8.3: they come first, in no order of their own."""
    fields = calls.fields()
    for _ in range(4):
        fields[:4] = [*fields[1:4], fields[0]]
        assert peer.answer(ask(peer, fields)).values() == calls.RIGHT


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "OPTIONS", "post", "POS", ""])
def test_calls_are_made_by_post(peer, method):
    """gRPC: :method is POST; anything else is refused, if not as malformed."""
    stream = ask(peer, calls.fields(method=method))
    peer.expect_refused_message(stream, Code.INTERNAL_ERROR)


def test_connect_is_refused(peer):
    """8.5: CONNECT has neither :scheme nor :path; this is no proxy."""
    fields = calls.fields(method="CONNECT", scheme=None, path=None)
    peer.expect_refused_message(ask(peer, fields))


# ---- 8.1.1, content-length ----


def test_a_content_length_that_is_true_is_taken(peer):
    """8.1.1: padding is no content."""
    stream = peer.start(calls.fields(calls.UNARY, ("content-length", str(len(BODY)))))
    peer.send(frames.data(stream, BODY[:9], pad=7), frames.data(stream, BODY[9:], pad=0, end=True))
    assert peer.answer(stream).values() == calls.RIGHT


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("octets", [0, 1, len(BODY) - 1, len(BODY) + 1, 2**31, 2**63, 2**64 + 1])
def test_a_content_length_that_is_not_true_is_malformed(peer, octets, parts):
    """8.1.1: it MUST equal the sum of the DATA frames' payloads."""
    stream = peer.start(calls.fields(calls.UNARY, ("content-length", str(octets))))
    size = len(BODY) // parts + 1
    pieces = [BODY[start : start + size] for start in range(0, len(BODY), size)]
    peer.send(*(frames.data(stream, piece, end=piece is pieces[-1]) for piece in pieces))
    peer.expect_refused_message(stream)


def test_a_content_length_without_content_is_malformed(peer):
    """8.1.1: nor may a request end with its HEADERS then."""
    stream = peer.start(calls.fields(calls.UNARY, ("content-length", "5")), end=True)
    peer.expect_refused_message(stream)


@pytest.mark.parametrize("text", ["", "five", "-1", "+40", "0x28", f"{len(BODY)} ", "4 0", "40,40"])
def test_a_content_length_is_a_number(peer, text):
    """RFC 9110, 8.6: digits only."""
    stream = peer.start(calls.fields(calls.UNARY, ("content-length", text)))
    peer.send(frames.data(stream, BODY, end=True))
    peer.expect_refused_message(stream)


def test_content_lengths_agree(peer):
    """RFC 9110, 8.6: values that differ are an error."""
    both = (("content-length", str(len(BODY))), ("content-length", str(len(BODY) + 1)))
    stream = peer.start(calls.fields(calls.UNARY, *both))
    peer.send(frames.data(stream, BODY, end=True))
    peer.expect_refused_message(stream)
