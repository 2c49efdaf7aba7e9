"""System shared memory: what may be registered, and the bounds of reading and writing it."""

import os
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest

from gateway.errors import Conflict, InvalidRequest, NotFound, RequestTooLarge
from gateway.front.shared_memory import SharedMemoryRegions


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    block = SharedMemory(create=True, size=4096)
    assert block.buf is not None
    block.buf[:10] = b"0123456789"
    yield block
    block.close()
    block.unlink()


@pytest.fixture
def regions() -> Iterator[SharedMemoryRegions]:
    made = SharedMemoryRegions()
    yield made
    made.unregister()


def test_reading_and_writing_within_a_region(
    memory: SharedMemory, regions: SharedMemoryRegions
) -> None:
    regions.register("r", f"/{memory.name}", 2, 100)
    assert regions.read("r", 1, 3) == b"345"
    regions.write("r", 0, 5, b"abc")
    assert bytes(memory.buf[:10]) == b"01abc56789"
    assert regions.status("r") == [
        {"name": "r", "key": f"/{memory.name}", "offset": 2, "byte_size": 100}
    ]


@pytest.mark.parametrize(("offset", "size"), [(0, 101), (100, 1), (-1, 1), (0, -1), (1 << 62, 1)])
def test_nothing_outside_the_region_is_read_or_written(
    memory: SharedMemory, regions: SharedMemoryRegions, offset: int, size: int
) -> None:
    regions.register("r", memory.name, 0, 100)
    with pytest.raises(InvalidRequest, match="not within"):
        regions.read("r", offset, size)
    with pytest.raises(InvalidRequest):
        regions.write("r", offset, size, b"")


def test_data_larger_than_its_place(memory: SharedMemory, regions: SharedMemoryRegions) -> None:
    regions.register("r", memory.name, 0, 100)
    with pytest.raises(InvalidRequest, match="11 bytes, but 10"):
        regions.write("r", 0, 10, b"x" * 11)
    assert regions.read("r", 0, 1) == b"0"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "//x",
        "../etc/passwd",
        "/../etc/passwd",
        "a/b",
        "..",
        ".",
        "a\0b",
        "\ud800",
        "x" * 999,
    ],
)
def test_a_key_is_a_name_and_no_path(regions: SharedMemoryRegions, key: str) -> None:
    with pytest.raises(InvalidRequest):
        regions.register("r", key, 0, 1)
    assert regions.status() == []


def test_no_link_leads_out(regions: SharedMemoryRegions, memory: SharedMemory) -> None:
    link = f"/dev/shm/{memory.name}-link"
    os.symlink("/etc/passwd", link)
    try:
        with pytest.raises(InvalidRequest, match="cannot open"):
            regions.register("r", f"{memory.name}-link", 0, 1)
    finally:
        os.unlink(link)


@pytest.mark.parametrize(("offset", "size"), [(0, 4097), (4096, 1), (-1, 1), (0, 0), (0, -1)])
def test_a_region_fits_its_object(
    memory: SharedMemory, regions: SharedMemoryRegions, offset: int, size: int
) -> None:
    with pytest.raises(InvalidRequest):
        regions.register("r", memory.name, offset, size)


def test_names_are_unique_and_can_be_forgotten(
    memory: SharedMemory, regions: SharedMemoryRegions
) -> None:
    regions.register("r", memory.name, 0, 10)
    regions.register("s", memory.name, 10, 10)
    with pytest.raises(Conflict, match="'r' is registered already"):
        regions.register("r", memory.name, 0, 10)
    regions.unregister("r")
    regions.unregister("r")
    assert [each["name"] for each in regions.status()] == ["s"]
    regions.register("r", memory.name, 0, 10)
    regions.unregister()
    assert regions.status() == []
    for use in (lambda: regions.read("r", 0, 1), lambda: regions.status("r")):
        with pytest.raises(NotFound, match="'r'"):
            use()


def test_what_was_read_outlives_its_region_and_its_object(
    memory: SharedMemory, regions: SharedMemoryRegions
) -> None:
    regions.register("r", memory.name, 0, 4096)
    array = np.frombuffer(regions.read("r", 0, 10), np.uint8)
    # A mapped page that is cut off would end this process with SIGBUS when it is touched.
    os.truncate(f"/dev/shm/{memory.name}", 0)
    regions.unregister("r")
    assert array.tobytes() == b"0123456789"


def test_an_object_that_was_cut_is_an_error_and_no_crash(
    memory: SharedMemory, regions: SharedMemoryRegions
) -> None:
    path = f"/dev/shm/{memory.name}"
    regions.register("r", memory.name, 0, 4096)
    os.truncate(path, 100)
    with pytest.raises(InvalidRequest, match="made smaller"):
        regions.read("r", 0, 4096)
    with pytest.raises(InvalidRequest, match="made smaller"):
        regions.write("r", 90, 20, bytes(20))
    assert os.path.getsize(path) == 100
    assert regions.read("r", 0, 10) == b"0123456789"


def test_one_input_is_no_larger_than_a_request_may_be(memory: SharedMemory) -> None:
    regions = SharedMemoryRegions(max_read_bytes=1000)
    regions.register("r", memory.name, 0, 4096)
    assert len(regions.read("r", 0, 1000)) == 1000
    with pytest.raises(RequestTooLarge, match="1000 bytes, got 1001; --max-request-bytes"):
        regions.read("r", 0, 1001)
    regions.unregister()


def test_no_descriptor_is_left_open(memory: SharedMemory, regions: SharedMemoryRegions) -> None:
    before = len(os.listdir("/proc/self/fd"))
    regions.register("r", memory.name, 0, 10)
    with pytest.raises(InvalidRequest, match="do not fit"):
        regions.register("s", memory.name, 0, 4097)
    regions.unregister()
    assert len(os.listdir("/proc/self/fd")) == before
