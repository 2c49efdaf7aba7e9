"""RFC 9113, section 3.4: the connection preface; and what is no preface at all."""

import re
import socket
from collections.abc import Iterator

import pytest

from tests.http2 import calls, frames
from tests.http2.connection import connect, heard_until_closed
from tests.http2.frames import Code, Type
from tests.http2.peer import Peer


@pytest.fixture
def silent(server) -> Iterator[Peer]:
    """A connection on which nothing has been sent yet."""
    with Peer(server.front.port, preface=False) as peer:
        yield peer


def test_the_servers_first_frame_is_settings(silent):
    """3.4: SETTINGS MUST be the first frame that the server sends."""
    silent.send(frames.PREFACE)
    silent.send_settings({})
    silent.until(lambda: silent.log, "the server's preface")
    first = silent.log[0]
    assert (first.type, first.stream, first.has(frames.ACK)) == (Type.SETTINGS, 0, False)


def test_the_clients_settings_are_acknowledged(silent):
    """3.4: the SETTINGS of a preface MUST be acknowledged once the preface has been sent."""
    silent.send(frames.PREFACE)
    silent.change_settings({})
    assert silent.settings_came


def test_a_client_need_not_wait_for_the_servers_preface(silent):
    """3.4: clients may send more frames right after their preface."""
    silent.send(frames.PREFACE)
    silent.send_settings({})
    stream = silent.call()
    assert silent.answer(stream).values() == calls.RIGHT


def test_a_preface_may_come_octet_by_octet(silent):
    """TCP keeps no boundaries: neither does the preface's reader."""
    silent.unacked.append({})
    for octet in frames.PREFACE + frames.settings():
        silent.send(bytes([octet]))
    silent.until(lambda: silent.settings_came, "the server's SETTINGS")
    silent.expect_alive()


@pytest.mark.parametrize(
    "first",
    [
        frames.ping(),
        frames.window_update(0, 1),
        frames.headers(1, b"\x83", end=True),
        frames.goaway(),
        frames.frame(0xFA, 0, 0, b"unknown"),
    ],
    ids=["PING", "WINDOW_UPDATE", "HEADERS", "GOAWAY", "unknown"],
)
def test_a_preface_without_settings_is_a_connection_error(silent, first):
    """3.4: a connection error of type PROTOCOL_ERROR; GOAWAY may be left out."""
    silent.open(1)
    silent.send(frames.PREFACE, first)
    silent.until_closed()
    assert {code for _, code in silent.goaways} <= {Code.PROTOCOL_ERROR}


@pytest.mark.parametrize(
    "octets",
    [
        b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n" + frames.settings(),
        b"PRI * HTTP/2.0\r\n\r\n\r\n\r\n\r\n\r\n" + frames.settings(),
        b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n" + frames.settings(),
        b"pri * http/2.0\r\n\r\nsm\r\n\r\n" + frames.settings(),
        frames.settings() + frames.ping() * 4,
        b"\0" * 64,
        bytes(range(128, 256)),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)),
        b"INVALID CONNECTION PREFACE\r\n\r\n",
    ],
    ids=[
        "SX", "no SM", "2.1", "lower case", "none", "NUL", "binary", "TLS", "words",
    ],
)  # fmt: skip
def test_an_invalid_preface_closes_the_connection(silent, octets):
    """3.4: the connection is ended; GOAWAY may be left out, this is no HTTP/2."""
    silent.send(octets)
    heard_until_closed(silent.socket)


@pytest.mark.parametrize("length", [0, 1, 3, 23])
def test_a_client_that_leaves_within_its_preface_is_let_go(silent, length):
    """A connection that its client has ended is closed, though it never was HTTP/2."""
    silent.send(frames.PREFACE[:length])
    silent.socket.shutdown(socket.SHUT_WR)
    heard_until_closed(silent.socket)


def test_a_client_that_leaves_after_its_preface_is_let_go(peer):
    """The same where no stream is open."""
    peer.barrier()
    peer.socket.shutdown(socket.SHUT_WR)
    peer.until_closed()


@pytest.mark.parametrize(
    "request_text",
    [
        "GET / HTTP/1.1\r\nHost: gateway\r\n\r\n",
        "GET /v2/health/ready HTTP/1.0\r\n\r\n",
        "POST /v2/models/x/infer HTTP/1.1\r\nHost: gateway\r\nContent-Length: 2\r\n\r\n{}",
        "OPTIONS * HTTP/1.1\r\nHost: gateway\r\n\r\n",
        "PRIVATE / HTTP/1.1\r\nHost: gateway\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    ],
    ids=["GET", "HTTP 1.0", "POST", "OPTIONS", "PRI...", "h2c upgrade"],
)
def test_an_http_1_request_is_told_so_in_its_own_words(server, request_text):
    """Our own rule: whoever has mixed the ports up gets an answer that any HTTP client can show."""
    with connect(server.front.port) as connection:
        connection.sendall(request_text.encode())
        answer = heard_until_closed(connection).decode("latin-1")
    head, _, body = answer.partition("\r\n\r\n")
    status_line, *field_lines = head.split("\r\n")
    assert re.fullmatch(r"HTTP/1\.1 (400|505) [ -~]+", status_line)
    fields = dict(line.lower().split(": ", 1) for line in field_lines)
    assert fields["connection"] == "close"
    assert int(fields["content-length"]) == len(body) > 0
    assert "HTTP/2" in body
