"""A real HTTP receiver of webhooks, in a thread of the test's process."""

import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Received(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """Answers with ``statuses`` one after the other, then with 200; ``received`` has what came.

    ``held`` keeps every answer back while it is not set.
    """

    def __init__(self, *statuses: int, headers: dict[str, str] | None = None) -> None:
        self.received: queue.SimpleQueue[Received] = queue.SimpleQueue()
        self.held = threading.Event()
        self.held.set()
        self._statuses = list(statuses)
        self._headers = headers or {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                names = {name.lower(): value for name, value in self.headers.items()}
                outer.received.put(Received(self.path, names, body))
                outer.held.wait()
                status = outer._statuses.pop(0) if outer._statuses else 200
                answer = b"" if status == 200 else b"not now"
                self.send_response(status)
                for name, value in outer._headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook?x=1"

    def next(self) -> Received:
        return self.received.get(timeout=20)

    def __enter__(self) -> "Receiver":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.held.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
