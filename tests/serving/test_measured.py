"""Runs of a load: what they are measured by, and where they are done."""

import contextlib
import os
import threading
import time
from pathlib import Path

import onnx
import pytest

from gateway.serving.background import BACKGROUND_NICENESS, Background
from gateway.serving.measured import LONG_RUN_NS, MeasuredRuns
from gateway.serving.onnx.session import open_session
from gateway.serving.settings import ModelSettings
from tests.repository import rows


class Session:
    """Takes as long as it is told to, and remembers which threads ran it."""

    device = "cpu"

    def __init__(self, alone: bool) -> None:
        self.alone = alone
        self.busy_ns = 0
        self.threads: list[str] = []

    def run(self, feeds: object, outputs: object, limit_s: float | None = None) -> list[object]:
        self.threads.append(threading.current_thread().name)
        end_ns = time.thread_time_ns() + self.busy_ns
        while time.thread_time_ns() < end_ns:
            pass
        if not self.alone:
            # Other threads are at work, and this one waits for them.
            threading.Event().wait(self.busy_ns / 1e9)
        return []


@pytest.mark.parametrize(("alone", "least"), [(True, 1), (False, 2)])
def test_a_run_is_measured_by_what_it_needs_of_a_core_where_one_thread_does_it_all(
    alone: bool, least: int
) -> None:
    session = Session(alone)
    session.busy_ns = 20_000_000
    runs = MeasuredRuns(session)
    runs.run({}, [])
    assert runs.spent_ns >= least * session.busy_ns
    # However long it has to wait for the core.
    assert not alone or runs.spent_ns < 2 * session.busy_ns


def test_long_runs_stand_back_and_short_ones_do_not() -> None:
    session = Session(alone=True)
    here = threading.current_thread().name
    with Background() as background:
        runs = MeasuredRuns(session, background)
        for busy_ns in (0, 2 * LONG_RUN_NS, 2 * LONG_RUN_NS, 0, 0):
            session.busy_ns = busy_ns
            runs.run({}, [])
    assert [name == here for name in session.threads] == [True, True, False, False, True]


def test_what_is_done_in_the_background_stands_back_and_tells_its_errors() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = niceness()
    with Background() as background:
        assert background.run(niceness) == BACKGROUND_NICENESS
        with pytest.raises(ZeroDivisionError):
            background.run(lambda: 1 / 0)
    assert niceness() == before


@pytest.mark.parametrize("threads", [1, 2])
def test_the_threads_of_a_session_never_stand_back(tmp_path: Path, threads: int) -> None:
    onnx.save(rows(), tmp_path / "model.onnx")
    settings = ModelSettings(intra_op_threads=threads)
    with Background() as background:
        session = open_session(
            tmp_path / "model.onnx", settings, size_bytes=1, background=background
        )
    assert session.alone == (threads == 1)
    # The system lets go of a thread a moment after the interpreter has.
    deadline_s = time.monotonic() + 10
    while BACKGROUND_NICENESS in niceness_of_threads():
        assert time.monotonic() < deadline_s


def niceness_of_threads() -> set[int]:
    """Of every thread of this process that there is."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found.add(int((task / "stat").read_text().rpartition(")")[2].split()[16]))
    return found
