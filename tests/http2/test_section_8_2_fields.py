"""RFC 9113, section 8.2: which header fields make a request malformed."""

import pytest

from tests.http2 import calls, frames
from tests.http2.calls import prefixed

BODY = prefixed(calls.request())


def ask(peer, *more: tuple[bytes, bytes], **replaced) -> int:
    """A request that is right but for ``more`` fields at its end."""
    return peer.call(BODY, [*calls.fields(**replaced), *more])


# ---- 8.2.1, field validity ----

#: 0x00-0x20, 0x41-0x5a and 0x7f-0xff, and the colon.
UNFIT = [
    *(bytes([octet]) for octet in (0, 1, 9, 10, 13, 31, 32, 0x7F, 0x80, 0xE9, 0xFF)),
    *(b"A", b"M", b"Z", b":"),
]


@pytest.mark.parametrize("octet", UNFIT, ids=lambda octet: octet.hex())
@pytest.mark.parametrize("form", [b"%sname", b"na%sme", b"name%s"], ids=["begin", "mid", "end"])
def test_names_are_tokens_in_lower_case(peer, octet, form):
    """8.2.1: these octets MUST NOT be in a field name."""
    if octet == b":" and form.startswith(b"%s"):
        form = b"x%sname"  # at the beginning it makes a pseudo-header field
    peer.expect_refused_message(ask(peer, (form % octet, b"value")))


def test_a_name_is_not_empty(peer):
    """RFC 9110, 5.1: a token has at least one character."""
    peer.expect_refused_message(ask(peer, (b"", b"value")))


@pytest.mark.parametrize("name", [b"x-y_z.0", b"a", b"9", b"-"])
def test_metadata_has_any_name_that_grpc_knows(peer, name):
    """gRPC, Header-Name: 0-9, a-z, "_", "-" and "."."""
    assert peer.answer(ask(peer, (name, b"value"))).values() == calls.RIGHT


def test_any_token_is_well_formed(peer):
    """RFC 9110, 5.6.2: a name that gRPC does not know may cost the call, not as malformed."""
    answer = peer.answer(ask(peer, (b"!#$%&'*+-.^_`|~09az", b"value")))
    assert answer.ended
    assert answer.http_status == 200


@pytest.mark.parametrize("octet", [b"\0", b"\n", b"\r"], ids=["NUL", "LF", "CR"])
@pytest.mark.parametrize("form", [b"%svalue", b"va%slue", b"value%s"], ids=["begin", "mid", "end"])
@pytest.mark.parametrize("name", [b"x-name", b"user-agent", b":authority"])
def test_values_have_no_nul_and_no_line_breaks(peer, name, octet, form):
    """8.2.1: MUST NOT be in a field value at any position."""
    if name.startswith(b":"):
        fields = [(n, form % octet if n == name else v) for n, v in calls.fields()]
        peer.expect_refused_message(peer.call(BODY, fields))
    else:
        peer.expect_refused_message(ask(peer, (name, form % octet)))


@pytest.mark.parametrize("value", [b" value", b"value ", b"\tvalue", b"value\t", b" ", b"\t"])
def test_values_neither_begin_nor_end_with_white_space(peer, value):
    """8.2.1: a field value MUST NOT start or end with SP or HTAB."""
    peer.expect_refused_message(ask(peer, (b"x-name", value)))


@pytest.mark.parametrize("value", [b"", b"in the\tmiddle", b"!~ \"'(),/:;<=>?@[\\]{}"])
def test_other_values_are_taken(peer, value):
    """8.2.1: empty ones, white space within, and all that is visible."""
    assert peer.answer(ask(peer, (b"x-name", value))).values() == calls.RIGHT


# ---- 8.2.2, connection-specific header fields ----


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"connection", b"close"),
        (b"connection", b"keep-alive"),
        (b"connection", b"te"),
        (b"proxy-connection", b"keep-alive"),
        (b"keep-alive", b"timeout=5"),
        (b"transfer-encoding", b"chunked"),
        (b"transfer-encoding", b"identity"),
        (b"upgrade", b"h2c"),
    ],
)
def test_fields_of_a_connection_are_malformed(peer, name, value):
    """8.2.2: a message with connection-specific fields MUST be treated as malformed."""
    peer.expect_refused_message(ask(peer, (name, value)))


@pytest.mark.parametrize("value", ["gzip", "trailers, deflate;q=0.5", "", "chunked"])
def test_te_says_trailers_and_nothing_else(peer, value):
    """8.2.2: TE MUST NOT contain any value other than "trailers"."""
    peer.expect_refused_message(ask(peer, te=value))


# ---- 8.2.3, the Cookie header field ----


def test_cookies_may_come_in_crumbs(peer):
    """8.2.3: a cookie may be split into several fields; here nobody reads it."""
    crumbs = [(b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"cookie", b"c=3")]
    assert peer.answer(ask(peer, *crumbs)).values() == calls.RIGHT


# ---- what stays of the connection ----


def test_a_malformed_request_is_no_other_requests_affair(peer):
    """8.1.1: malformed is a stream error."""
    before = peer.start()
    wrong = ask(peer, (b"X-Upper", b"1"))
    after = peer.start()
    for stream in (after, before):
        peer.send(frames.data(stream, BODY, end=True))
        assert peer.answer(stream).values() == calls.RIGHT
    peer.expect_refused_message(wrong)


def test_a_malformed_request_reaches_no_model(held, peer):
    """8.1.1: it MUST NOT be processed."""
    peer.expect_refused_message(ask(peer, (b"X-Upper", b"1")))
    assert not held.on_loop(lambda: list(held.dispatcher.waiting))
