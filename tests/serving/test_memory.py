"""How much memory the process can still get, by files as a system has them."""

from pathlib import Path

import pytest

from gateway.serving.memory import PAUSE_S, RESERVE_BYTES, FreeMemory, available_bytes

GIB = 1 << 30


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A machine with 8 GiB available, and the process in no group that has a limit."""
    put(tmp_path, "proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n")
    put(tmp_path, "proc/self/cgroup", "0::/service/gateway\n")
    return tmp_path


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def version_2(root: Path, group: str, limit: str, used: int, cache: int = 0) -> None:
    put(root, f"sys/fs/cgroup/{group}/memory.max", f"{limit}\n")
    put(root, f"sys/fs/cgroup/{group}/memory.current", f"{used}\n")
    put(root, f"sys/fs/cgroup/{group}/memory.stat", f"anon 5\ninactive_file {cache}\n")


def test_the_machine_alone(system: Path) -> None:
    assert available_bytes(system) == 8 * GIB - RESERVE_BYTES


def test_a_group_without_a_limit_changes_nothing(system: Path) -> None:
    version_2(system, "service/gateway", "max", 9 * GIB)
    assert available_bytes(system) == 8 * GIB - RESERVE_BYTES


def test_what_a_group_leaves_of_its_limit(system: Path) -> None:
    version_2(system, "service/gateway", str(4 * GIB), 3 * GIB)
    assert available_bytes(system) == GIB - RESERVE_BYTES


def test_a_group_around_it_counts_too(system: Path) -> None:
    version_2(system, "service/gateway", str(4 * GIB), 1 * GIB)
    version_2(system, "service", str(6 * GIB), 5 * GIB)
    assert available_bytes(system) == GIB - RESERVE_BYTES


def test_cached_files_can_be_had(system: Path) -> None:
    version_2(system, "service/gateway", str(4 * GIB), 4 * GIB, cache=2 * GIB)
    assert available_bytes(system) == 2 * GIB - RESERVE_BYTES


def test_inside_a_container_the_outermost_group_is_its_own(system: Path) -> None:
    put(system, "proc/self/cgroup", "0::/../../pods/17\n")
    version_2(system, "", str(2 * GIB), GIB)
    assert available_bytes(system) == GIB - RESERVE_BYTES


def test_control_groups_of_version_1(system: Path) -> None:
    put(system, "proc/self/cgroup", "7:cpu,cpuacct:/\n4:memory:/docker/17\n0::/\n")
    # The path is the host's, the mount shows the container's group.
    put(system, "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{3 * GIB}\n")
    put(system, "sys/fs/cgroup/memory/memory.usage_in_bytes", f"{2 * GIB}\n")
    put(system, "sys/fs/cgroup/memory/memory.stat", f"total_inactive_file {GIB}\n")
    assert available_bytes(system) == 2 * GIB - RESERVE_BYTES


def test_a_full_group_leaves_nothing(system: Path) -> None:
    version_2(system, "service/gateway", str(4 * GIB), 4 * GIB)
    assert available_bytes(system) == 0


def test_nothing_is_known_where_the_system_tells_nothing(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None


def test_this_system_tells_something() -> None:
    available = available_bytes()
    assert available is None or available > 0


class Loop:
    """Keeps what it is to do until the test does it."""

    def __init__(self):
        self.later = []
        self.done = 0

    def call_later(self, delay_s, callback):
        assert delay_s == PAUSE_S
        self.later.append(callback)
        return self

    def run_in_executor(self, executor, work):
        work()

    def cancel(self):
        self.later.clear()


def test_what_unloads_free_is_given_back_at_once_and_then_once_in_a_while():
    loop, given_back = Loop(), []
    memory = FreeMemory(loop, lambda: given_back.append(True))
    memory.freed()
    assert len(given_back) == 1
    for _ in range(5):
        memory.freed()
    assert len(given_back) == 1
    loop.later.pop()()
    assert len(given_back) == 2, "once for all five"
    loop.later.pop()()
    assert (len(given_back), loop.later) == (2, []), "and no more, nor is there a timer"
    memory.freed()
    assert len(given_back) == 3


def test_after_the_end_nothing_is_given_back():
    loop, given_back = Loop(), []
    memory = FreeMemory(loop, lambda: given_back.append(True))
    memory.freed()
    memory.freed()
    memory.close()
    assert (len(given_back), loop.later) == (1, [])
