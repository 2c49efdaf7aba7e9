"""Receivers of predictions in processes of their own, to be stalled, killed and restarted."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import nats
from nats.js.api import AckPolicy, ConsumerConfig

from tests.server import HOST, free_ports

DEADLINE_S = 30.0


class Receiver:
    """A process. A context manager: leaving ends it, whatever its state."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_ports(1)[0]
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        log = (self.directory / "receiver.log").open("ab")
        with log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        until(self.listens)

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def stall(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error) -> None:
        self.kill()


class HttpReceiver(Receiver):
    """Notes each event before it is answered. Its status is what the file ``status`` says."""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/events?source=test"

    def command(self) -> list[str]:
        return [
            sys.executable,
            *("-m", "tests.stream.sinks.http_receiver"),
            *(str(self.port), str(self.directory)),
        ]

    def answer_with(self, status: int) -> None:
        (self.directory / "status").write_text(str(status))

    def events(self) -> list[dict]:
        """What it has answered with 200: headers and body of each."""
        file = self.directory / "events.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def ids(self) -> list[tuple[str, str]]:
        """The type and the id of each event, in the order in which they came."""
        return [(e["headers"]["ce-type"], e["headers"]["ce-id"]) for e in self.events()]


class NatsReceiver(Receiver):
    """A NATS server with a stream on disk, for the subjects ``predictions.*``."""

    @property
    def url(self) -> str:
        return f"nats://{HOST}:{self.port}"

    def command(self) -> list[str]:
        server = Path(sys.executable).parent / "nats-server"
        store = self.directory / "store"
        return [str(server), "-js", "-a", HOST, "-p", str(self.port), "-sd", str(store)]

    def add_stream(self, **options) -> None:
        async def add(client):
            await client.jetstream().add_stream(
                name="predictions", subjects=["predictions.*"], **options
            )

        self._with_client(add)

    def messages(self) -> list:
        async def read(client):
            stream = client.jetstream()
            info = await stream.stream_info("predictions")
            reader = await stream.pull_subscribe(
                "predictions.*",
                stream="predictions",
                config=ConsumerConfig(ack_policy=AckPolicy.NONE),
            )
            found: list = []
            while len(found) < info.state.messages:
                found += await reader.fetch(min(500, info.state.messages - len(found)), timeout=10)
            return found

        return self._with_client(read)

    def ids(self) -> list[tuple[str, str]]:
        return [(m.headers["ce-type"], m.headers["ce-id"]) for m in self.messages()]

    def _with_client(self, work):
        async def run():
            client = await nats.connect(self.url)
            try:
                return await work(client)
            finally:
                await client.close()

        return asyncio.run(run())


def until(condition, deadline_s: float = DEADLINE_S) -> None:
    """Poll ``condition`` until it is true."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {deadline_s} s"
        time.sleep(0.02)
