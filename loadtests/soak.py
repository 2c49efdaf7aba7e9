"""Does anything stay behind? ``python -m loadtests.soak``: memory and open files over a long run.

One connection carries a million calls; ten thousand connections are opened and closed, half of
them with a reset; and calls and streams are cancelled, run out of time, or come to their end. The
exit code is 1 when resident memory grew by more than 2%, or a file descriptor is still open.
"""

import argparse
import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from loadtests import models, payloads, targets
from loadtests.bench import REPOSITORY
from loadtests.memory import ALLOWED_GROWTH, MODEL
from loadtests.payloads import Payload
from loadtests.process import Server, ServerError
from loadtests.raw_http2 import RawConnection, WrongFrame

#: Calls in flight on the one connection, and connections open at a time: below the limit of open
#: files that processes usually have.
STREAMS = 32
AT_ONCE = 500
#: Of each kind in one round of the mix: few enough resets for one connection not to be rationed.
CALLS_A_ROUND, STREAMS_A_ROUND = 100, 10
#: Seconds that the server may take to let go of the last connections.
CLOSING_S = 20.0

_STREAM_PATH = payloads.GRPC_PATH.replace("ModelInfer", "ModelStreamInfer")


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much of each kind: calls on one connection, connections, rounds of the mix."""

    calls: int
    connections: int
    rounds: int


WARM_UP = Amounts(50_000, 2 * AT_ONCE, 20)


def carry_calls(port: int, payload: Payload, calls: int) -> None:
    """``calls`` over one connection, always ``STREAMS`` of them in flight."""
    with RawConnection(port, payload) as connection:
        begun = min(STREAMS, calls)
        connection.begin(begun)
        while connection.answered < calls:
            more = min(connection.read(), calls - begun)
            if more:
                connection.begin(more)
                begun += more


def open_connections(port: int, payload: Payload, count: int, at_once: int = AT_ONCE) -> None:
    """``count`` connections with a call each, of which ``at_once`` are open together."""
    answer = b""
    for first in range(0, count, at_once):
        with contextlib.ExitStack() as stack:
            opened = [
                stack.enter_context(RawConnection(port, payload, answer))
                for _ in range(first, min(first + at_once, count))
            ]
            for connection in opened:
                connection.begin(1)
            for connection in opened:
                connection.finish(1)
                answer = connection.answer
            for connection in opened[::2]:
                connection.close(abruptly=True)


def mix_ends(port: int, payload: Payload, rounds: int) -> None:
    """Calls and streams of grpcio that are cancelled, expire, or end well; a channel a round."""

    async def run() -> None:
        for _ in range(rounds):
            await _round(f"127.0.0.1:{port}", payload.body[5:])

    asyncio.run(run())


async def _round(url: str, message: bytes) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(url, options) as channel:
        infer = channel.unary_unary(payloads.GRPC_PATH)
        stream = channel.stream_stream(_STREAM_PATH)
        calls = [
            # A third ends well, a third is cancelled, a third has a millisecond.
            infer(message, timeout=0.001 if i % 3 == 2 else 60.0)
            for i in range(CALLS_A_ROUND)
        ]
        # Enough turns of the loop for the requests to be on their way.
        for _ in range(3):
            await asyncio.sleep(0)
        for call in calls[1::3]:
            call.cancel()
        streams = [
            _use_stream(stream(timeout=60.0), message, leave=i % 2 == 1)
            for i in range(STREAMS_A_ROUND)
        ]
        ends = await asyncio.gather(*calls, *streams, return_exceptions=True)
        well = [end for end in ends if not isinstance(end, BaseException)]
        if len(well) < CALLS_A_ROUND // 3 + STREAMS_A_ROUND:
            failures = {repr(end) for end in ends if isinstance(end, BaseException)}
            raise WrongFrame(f"calls failed that nobody cut short: {failures}")


async def _use_stream(call: Any, message: bytes, leave: bool) -> None:
    """Eight requests, of which the first is waited for; then ``leave`` or read to the end."""
    await call.write(message)
    await call.read()
    for _ in range(7):
        await call.write(message)
    if leave:
        call.cancel()
        return
    await call.done_writing()
    while await call.read() is not grpc.aio.EOF:
        pass


def measure(gateway: targets.Gateway, warm_up: Amounts, amounts: Amounts) -> bool:
    """Whether memory and open files end where they were after ``warm_up``, and before it."""
    server = gateway.server
    files = server.open_files()
    for _, run in _phases(gateway.grpc_port, warm_up):
        run()
    before = server.memory_bytes()
    print(f"after warm-up: {_state(server)}; {files} open files before it", flush=True)
    for name, run in _phases(gateway.grpc_port, amounts):
        began_s, cpu_s = time.monotonic(), server.cpu_s()
        run()
        took_s, cpu_s = time.monotonic() - began_s, server.cpu_s() - cpu_s
        print(f"{name}: {took_s:.1f} s, {cpu_s:.1f} s of server CPU; {_state(server)}", flush=True)
    # The last connections are closed on this side, and soon on the other.
    deadline_s = time.monotonic() + CLOSING_S
    while server.open_files() > files and time.monotonic() < deadline_s:
        time.sleep(0.1)
    growth = server.memory_bytes() / before - 1
    print(f"in the end: {_state(server)}, {growth:+.2%} of memory")
    return growth <= ALLOWED_GROWTH and server.open_files() <= files


def _phases(port: int, amounts: Amounts) -> Iterator[tuple[str, Callable[[], None]]]:
    payload = payloads.grpc_raw(MODEL)
    yield (
        f"{amounts.calls:,} calls on one connection",
        lambda: carry_calls(port, payload, amounts.calls),
    )
    yield (
        f"{amounts.connections:,} connections, {AT_ONCE} at a time",
        lambda: open_connections(port, payload, amounts.connections),
    )
    yield (
        f"{CALLS_A_ROUND * amounts.rounds:,} calls and {STREAMS_A_ROUND * amounts.rounds:,} "
        "streams, many cut short",
        lambda: mix_ends(port, payload, amounts.rounds),
    )


def _state(server: Server) -> str:
    return f"{server.memory_bytes() / 2**20:.1f} MiB, {server.open_files()} open files"


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what a long run leaves behind.")
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=100, help="of cancelled calls and streams")
    arguments = parser.parse_args()
    amounts = Amounts(arguments.calls, arguments.connections, arguments.rounds)
    models.build(REPOSITORY)
    os.sched_setaffinity(0, {targets.LOAD_CORE})
    try:
        with targets.gateway(REPOSITORY, MODEL) as gateway:
            gateway.verify(REPOSITORY, MODEL)
            is_clean = measure(gateway, WARM_UP, amounts)
            gateway.verify(REPOSITORY, MODEL)
    except (ServerError, WrongFrame, targets.WrongAnswer) as error:
        raise SystemExit(f"the soak stopped: {error}") from None
    return 0 if is_clean else 1


if __name__ == "__main__":
    raise SystemExit(main())
