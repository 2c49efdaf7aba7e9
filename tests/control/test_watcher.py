"""Following the repositories: what is loaded and unloaded, and when."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from gateway.control.watcher import WATCHER, RepositoryWatcher
from gateway.errors import LoadError
from tests.control.plane import until


class FakeLoads:
    """Notes what it is asked for; the models in ``failing`` do not load."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.failing: set[str] = set()

    async def load(self, model: str, *, by: str, reason: str = "") -> None:
        assert (by, reason) == (WATCHER, "its files have changed")
        self.calls.append(("load", model))
        if model in self.failing:
            raise LoadError(f"model '{model}' is broken")

    async def unload(self, model: str, *, by: str, reason: str = "") -> None:
        assert (by, reason) == (WATCHER, "its files are gone")
        self.calls.append(("unload", model))
        if model in self.failing:
            raise LoadError(f"model '{model}' is broken")

    def taken(self) -> list[tuple[str, str]]:
        """What was asked for since the last time."""
        calls, self.calls = self.calls, []
        return calls


class Repository:
    """A repository under the eyes of a watcher, with one model, ``old``, in it."""

    def __init__(self, *paths: Path) -> None:
        self.path = paths[0]
        for path in paths:
            path.mkdir(exist_ok=True)
        self.loads = FakeLoads()
        self.watcher = RepositoryWatcher(paths, self.loads, poll_s=0.001)
        self._time = 1_700_000_000
        self.write("old")

    def write(self, model: str, content: bytes = b"model", version: str = "1") -> Path:
        """Write a version's file; each write has a time of its own."""
        file = self.path / model / version / "model.onnx"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        self._time += 1
        os.utime(file, (self._time, self._time))
        return file

    async def settled(self) -> list[tuple[str, str]]:
        """What is asked for once two looks have found the same."""
        await self.watcher.poll()
        first = self.loads.taken()
        assert first == [], "what was seen once may still be being written"
        await self.watcher.poll()
        return self.loads.taken()


def watched(test, path: Path, *more: Path) -> None:
    async def run() -> None:
        repository = Repository(path, *more)
        await repository.watcher.start()
        await test(repository)

    asyncio.run(run())


def test_what_was_there_at_the_start_is_loaded_already(tmp_path: Path) -> None:
    async def test(repository: Repository) -> None:
        assert await repository.settled() == []

    watched(test, tmp_path)


def test_a_new_model_is_loaded_once(tmp_path: Path) -> None:
    async def test(repository: Repository) -> None:
        repository.write("new")
        assert await repository.settled() == [("load", "new")]
        assert await repository.settled() == []

    watched(test, tmp_path)


def change_file(repository: Repository) -> None:
    repository.write("old", b"another")


def touch_file(repository: Repository) -> None:
    repository.write("old")


def add_version(repository: Repository) -> None:
    repository.write("old", version="2")


def add_a_file_beside_it(repository: Repository) -> None:
    (repository.path / "old" / "1" / "weights.bin").write_bytes(b"weights")


def change_settings(repository: Repository) -> None:
    (repository.path / "old" / "model.toml").write_text("max_batch_size = 4\n")


def add_golden_requests(repository: Repository) -> None:
    """One that has failed for the old ones may serve now; which is the load's business."""
    (repository.path / "old" / "golden").mkdir()
    (repository.path / "old" / "golden" / "a.json").write_text("{}")


def add_golden_requests_of_a_version(repository: Repository) -> None:
    (repository.path / "old" / "1" / "golden").mkdir()
    (repository.path / "old" / "1" / "golden" / "a.json").write_text("{}")


def break_settings(repository: Repository) -> None:
    (repository.path / "old" / "model.toml").write_text("max_batch_size = [\n")


@pytest.mark.parametrize(
    "change",
    [
        change_file,
        touch_file,
        add_version,
        add_a_file_beside_it,
        change_settings,
        add_golden_requests,
        add_golden_requests_of_a_version,
        break_settings,
    ],
)
def test_whatever_changes_of_a_model_it_is_loaded_anew(tmp_path: Path, change) -> None:
    async def test(repository: Repository) -> None:
        change(repository)
        assert await repository.settled() == [("load", "old")]
        assert await repository.settled() == []

    watched(test, tmp_path)


def test_a_version_that_is_taken_away_is_a_change_and_the_last_one_is_too(tmp_path: Path) -> None:
    async def test(repository: Repository) -> None:
        repository.write("old", version="2")
        assert await repository.settled() == [("load", "old")]
        shutil.rmtree(repository.path / "old" / "2")
        assert await repository.settled() == [("load", "old")]

    watched(test, tmp_path)


def test_a_model_that_is_gone_is_unloaded_once_and_loaded_when_it_is_back(tmp_path: Path) -> None:
    async def test(repository: Repository) -> None:
        shutil.rmtree(repository.path / "old")
        assert await repository.settled() == [("unload", "old")]
        assert await repository.settled() == []
        repository.write("old")
        assert await repository.settled() == [("load", "old")]

    watched(test, tmp_path)


def test_files_that_still_change_are_left_alone_until_they_rest(tmp_path: Path) -> None:
    """A copy in progress: at every look the file is another one."""

    async def test(repository: Repository) -> None:
        for size in range(1, 6):
            repository.write("new", b"part" * size)
            await repository.watcher.poll()
        assert repository.loads.taken() == []
        await repository.watcher.poll()
        assert repository.loads.taken() == [("load", "new")]

    watched(test, tmp_path)


def test_one_model_that_still_changes_keeps_no_other_waiting(tmp_path: Path) -> None:
    async def test(repository: Repository) -> None:
        repository.write("new")
        repository.write("growing")
        await repository.watcher.poll()
        repository.write("growing", b"more")
        await repository.watcher.poll()
        assert repository.loads.taken() == [("load", "new")]

    watched(test, tmp_path)


def test_a_change_that_is_taken_back_before_it_rests_is_none(tmp_path: Path) -> None:
    async def test(repository: Repository) -> None:
        file = repository.write("new")
        await repository.watcher.poll()
        shutil.rmtree(file.parent.parent)
        assert await repository.settled() == []

    watched(test, tmp_path)


def test_a_load_that_fails_is_tried_again_only_after_another_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(repository: Repository) -> None:
        repository.loads.failing.add("new")
        repository.write("new", b"broken")
        assert await repository.settled() == [("load", "new")]
        assert "model 'new' was not taken up as it is now: model 'new' is broken" in caplog.text
        assert await repository.settled() == []
        repository.loads.failing.clear()
        assert await repository.settled() == [], "only the files decide"
        repository.write("new", b"mended")
        assert await repository.settled() == [("load", "new")]

    watched(test, tmp_path)


def test_a_model_that_fails_keeps_no_other_from_being_taken_up(tmp_path: Path) -> None:
    async def test(repository: Repository) -> None:
        repository.loads.failing.update(("a", "old"))
        repository.write("a")
        repository.write("b")
        shutil.rmtree(repository.path / "old")
        expected = [("load", "a"), ("load", "b"), ("unload", "old")]
        assert await repository.settled() == expected

    watched(test, tmp_path)


def test_of_two_repositories_the_first_one_has_the_name(tmp_path: Path) -> None:
    async def test(repository: Repository) -> None:
        second = tmp_path / "b"
        shutil.copytree(repository.path / "old", second / "new")
        assert await repository.settled() == [("load", "new")]
        repository.write("new", b"it hides the other")
        assert await repository.settled() == [("load", "new")]
        shutil.rmtree(repository.path / "new")
        assert await repository.settled() == [("load", "new")]
        shutil.rmtree(second / "new")
        assert await repository.settled() == [("unload", "new")]

    watched(test, tmp_path / "a", tmp_path / "b")


def test_a_repository_that_cannot_be_read_for_a_while_costs_no_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A network mount that is away says nothing about the models on it."""

    async def test(repository: Repository) -> None:
        away = tmp_path / "away"
        repository.path.rename(away)
        following = asyncio.ensure_future(repository.watcher.run())
        await until(lambda: "the repositories could not be followed" in caplog.text)
        away.rename(repository.path)
        repository.write("new")
        await until(lambda: bool(repository.loads.calls))
        following.cancel()
        assert repository.loads.taken() == [("load", "new")]

    watched(test, tmp_path / "models")
