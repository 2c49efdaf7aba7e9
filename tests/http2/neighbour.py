"""Somebody else on the server: a grpcio client that has done nothing wrong."""

import threading
from pathlib import Path
from types import TracebackType

import grpc

from tests.http2 import calls
from tests.http2.connection import HOST

#: What a call may take while somebody attacks the server that answers it.
PATIENCE_S = 5.0


class Neighbour:
    """Calls one after the other, from a thread of its own, for as long as the context lasts.

    Leaving the context takes a call that begins then and is answered; any answer that was wrong
    or late is raised.
    """

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(
            f"{HOST}:{port}", [("grpc.use_local_subchannel_pool", 1)]
        )
        self._call = self._channel.unary_unary(calls.UNARY)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._go_on)
        self._wrong: list[BaseException] = []
        self.answered = 0

    def __enter__(self) -> "Neighbour":
        self._ask(0)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()
        try:
            if kind is None:
                self._ask(self.answered)
                if self._wrong:
                    raise AssertionError("a neighbour was not served") from self._wrong[0]
        finally:
            self._channel.close()

    def _go_on(self) -> None:
        try:
            while not self._stopped.is_set():
                self._ask(self.answered)
                self.answered += 1
        except BaseException as error:
            self._wrong.append(error)

    def _ask(self, number: int) -> None:
        answer = self._call(calls.request([float(number)], id=str(number)), timeout=PATIENCE_S)
        assert calls.values_of(answer) == [-float(number)]
        assert calls.id_of(answer) == str(number)


class Memory:
    """What the process has grown by since: the server is in it, and the attackers keep nothing."""

    def __init__(self) -> None:
        self._before = self._resident()

    @staticmethod
    def _resident() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * 4096

    @property
    def grown(self) -> int:
        return self._resident() - self._before
