"""Whenever a process dies, what it had committed is there, whole, and nothing else is."""

import asyncio
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.control.state_store import FILE_NAME, StateStore, verify_directory
from tests.control.state_writer import MODEL, decision

LOG_NAME = f"{FILE_NAME}-wal"


@contextmanager
def writing(directory: Path, *death: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.control.state_writer", str(directory), *death]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def decided_after_restart(directory: Path) -> int:
    """The number of the decision that a new process finds, once it has looked at all of it."""

    async def run() -> int:
        store = StateStore(directory)
        await store.open()
        try:
            decided = await store.load()
            number = int(decided[MODEL].stable) if decided else 0
            assert decided == (decision(number)[0] if number else {})
            (entry, *_) = await store.history(MODEL, limit=1) or [None]
            assert number == (entry.seq if entry else 0)
            assert entry is None or entry.event == decision(number)[1]
            found = await store.verify()
            assert (found.intact, found.entries) == (True, number), found.reason
            # It goes on from there.
            after = await store.commit(*decision(number + 1))
            assert after.seq == number + 1
            assert (await store.verify()).intact
            return number
        finally:
            await store.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("point", "in_flight_counts"),
    [("begin", False), ("state written", False), ("journal written", False), ("committed", True)],
)
@pytest.mark.parametrize("nth", [1, 7])
def test_death_at_a_point(tmp_path: Path, point: str, in_flight_counts: bool, nth: int) -> None:
    with writing(tmp_path, point, str(nth)) as process:
        acknowledged = [int(line) for line in process.stdout]
    assert process.wait() == -signal.SIGKILL
    assert acknowledged == list(range(1, nth))
    assert verify_directory(tmp_path).intact
    assert decided_after_restart(tmp_path) == (nth if in_flight_counts else nth - 1)


def test_death_at_any_moment(tmp_path: Path) -> None:
    """Killed after some acknowledgements, wherever it is by then; each time it goes on."""
    last = 0
    for acknowledgements in (1, 2, 3, 17, 60, 5):
        with writing(tmp_path) as process:
            told = [int(process.stdout.readline()) for _ in range(acknowledgements)]
            process.kill()
            told += [int(line) for line in process.stdout if line.endswith("\n")]
        assert told == list(range(last + 1, last + 1 + len(told)))
        decided = decided_after_restart(tmp_path)
        assert decided in (told[-1], told[-1] + 1), "the last one told, or the one in flight"
        last = decided + 1


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a process that died after 6 decisions, all of them in SQLite's log."""
    directory = tmp_path_factory.mktemp("unfinished")
    with writing(directory, "begin", "7") as process:
        assert len(list(process.stdout)) == 6
    return directory


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(share=st.floats(0, 1))
def test_a_log_that_reached_the_disk_in_part(
    unfinished: Path, tmp_path: Path, share: float
) -> None:
    """As after a power failure: what is left is some number of decisions, each of them whole."""
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(unfinished, copy)
    (copy / f"{FILE_NAME}-shm").unlink()
    log = copy / LOG_NAME
    size = log.stat().st_size
    with log.open("r+b") as file:
        file.truncate(round(size * share))
    decided = decided_after_restart(copy)
    assert 0 <= decided <= 6
    assert share < 1 or decided == 6


def test_the_directory_of_a_killed_process_is_free(tmp_path: Path) -> None:
    with writing(tmp_path) as process:
        process.stdout.readline()
        process.kill()
        process.wait()
        assert decided_after_restart(tmp_path) >= 1
