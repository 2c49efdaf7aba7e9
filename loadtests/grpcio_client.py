"""grpcio's asyncio client as a load generator: ``python -m loadtests.grpcio_client PORT FILE``.

Calls ModelInfer with the message in FILE over one channel, ``--in-flight`` at a time, for
``--seconds``; prints one JSON object: completed calls, seconds, latencies in milliseconds. It
costs several times what the server does, so its rate says nothing of the server; what the server
spends on each call of such a client does.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path

import grpc.aio
import numpy as np
import uvloop

from loadtests.payloads import GRPC_PATH

OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


async def latencies_s(url: str, message: bytes, in_flight: int, seconds: float) -> list[float]:
    """Of each call that began within ``seconds``; a call that fails ends it all."""
    taken = []

    async def call_repeatedly() -> None:
        while (began := time.monotonic()) < end:
            await infer(message)
            taken.append(time.monotonic() - began)

    async with grpc.aio.insecure_channel(url, OPTIONS) as channel:
        infer = channel.unary_unary(GRPC_PATH)
        await infer(message)
        end = time.monotonic() + seconds
        await asyncio.gather(*(call_repeatedly() for _ in range(in_flight)))
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description="Call ModelInfer with grpcio's client.")
    parser.add_argument("port", type=int)
    parser.add_argument("message", type=Path, metavar="FILE")
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    url, message = f"127.0.0.1:{arguments.port}", arguments.message.read_bytes()
    began = time.monotonic()
    taken = uvloop.run(latencies_s(url, message, arguments.in_flight, arguments.seconds))
    seconds = time.monotonic() - began
    p50, p99 = np.percentile(taken, [50, 99]) * 1e3
    print(
        json.dumps({"requests": len(taken) + 1, "seconds": seconds, "p50_ms": p50, "p99_ms": p99})
    )


if __name__ == "__main__":
    main()
