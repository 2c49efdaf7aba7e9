"""A process that decides, over and over, until it is killed.

Its arguments are ``DIRECTORY [POINT NTH]``. Decision number n makes version n stable. Each is told
on stdout once it is committed. With a ``POINT`` the process kills itself there, in the decision
``NTH`` from its start.
"""

import asyncio
import itertools
import os
import signal
import sys
from pathlib import Path

from gateway.control.journal import Event
from gateway.control.state_store import StateStore
from gateway.control.traffic import ModelTraffic, as_table

MODEL = "iris"


def decision(number: int) -> tuple[dict[str, ModelTraffic], Event]:
    traffic = ModelTraffic(stable=str(number), labels={"champion": str(number)})
    event = Event(
        by="ada", verb="promote", model=MODEL, version=str(number), after=as_table(traffic)
    )
    return {MODEL: traffic}, event


async def write(directory: Path, point: str, nth: int) -> None:
    passed = 0

    def fault(name: str) -> None:
        nonlocal passed
        passed += name == point
        if passed == nth and name == point:
            os.kill(os.getpid(), signal.SIGKILL)

    store = StateStore(directory, fault=fault)
    await store.open()
    decided = await store.load()
    start = int(decided[MODEL].stable) if decided else 0
    for number in itertools.count(start + 1):
        await store.commit(*decision(number))
        print(number, flush=True)


if __name__ == "__main__":
    given_point, given_nth = (*sys.argv[2:], "", "0")[:2]
    asyncio.run(write(Path(sys.argv[1]), given_point, int(given_nth)))
