"""A TCP relay that counts: what clients and servers do not tell, how many bytes went each way."""

import socket
import threading
from typing import Self

from tests.server import HOST


class Relay:
    """Passes connections on to ``port``; a context manager, whose end closes them all.

    Attributes:
        url: where clients find it.
        sent: bytes that clients have sent so far.
        received: bytes that they have got.
    """

    def __init__(self, port: int) -> None:
        self.sent = self.received = 0
        self._port = port
        self._listener = socket.create_server((HOST, 0))
        self.url = f"{HOST}:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target, *arguments) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection((HOST, self._port))
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [client, server]
            self._start(self._pass, client, server, "sent")
            self._start(self._pass, server, client, "received")

    def _pass(self, source: socket.socket, target: socket.socket, count: str) -> None:
        """One direction has one thread, so nothing else writes its count."""
        try:
            while data := source.recv(1 << 16):
                setattr(self, count, getattr(self, count) + len(data))
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        # Shutting a listener down ends its accept(), which closing it does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for end in self._sockets:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads[1:]:
            thread.join()
        for end in (self._listener, *self._sockets):
            end.close()
