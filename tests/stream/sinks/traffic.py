"""Requests to a running gateway, one after the other on a few connections, each with its own id."""

import http.client
import json
import threading
import time
from itertools import count

from tests.server import HOST

#: One request's rows; values do not matter here.
ROWS = 2
_BODY = {"inputs": [{"name": "x", "shape": [ROWS, 4], "datatype": "FP32", "data": [1.5] * 8}]}


class Traffic:
    """A context manager: it is sent from entering to leaving, which waits for the last answers.

    Attributes:
        answered: the ids of the requests that were answered with 200.
        failed: what else came.
        latencies: seconds of each answer, with the time at which it came.
    """

    def __init__(self, port: int, connections: int = 2, model: str = "rows") -> None:
        self.answered: list[str] = []
        self.failed: list[str] = []
        self.latencies: list[tuple[float, float]] = []
        self._port = port
        self._path = f"/v2/models/{model}/infer"
        self._numbers = count()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(connections)]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=30)
        while not self._end.is_set():
            id = f"r{next(self._numbers)}"
            began = time.perf_counter()
            try:
                connection.request("POST", self._path, json.dumps({"id": id, **_BODY}))
                response = connection.getresponse()
                body = response.read()
            except OSError as error:
                self.failed.append(f"{error!r}")
                connection.close()
                continue
            ended = time.perf_counter()
            self.latencies.append((ended, ended - began))
            if response.status == 200:
                self.answered.append(id)
            else:
                self.failed.append(f"{response.status} {body!r}")
        connection.close()
