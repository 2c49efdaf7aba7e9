"""Which versions are watched: follows the stream's sources and the files beside the models."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from gateway.errors import GatewayError
from gateway.monitor.findings import WindowReport
from gateway.monitor.kinds import MonitorKind
from gateway.monitor.live_profile import profile_paths, reference_of
from gateway.monitor.monitor_file import NAME, read_monitor_file
from gateway.monitor.version_monitor import VersionMonitor
from gateway.stream.stream import Source
from gateway.tables import Check

log = logging.getLogger(__name__)

#: Versions that are unloaded and whose reports are kept, of all models.
MAX_GONE: Final = 32

#: A model and a version of it.
Key = tuple[str, str]


class Monitored:
    """The monitors of all versions. Used on the monitors' thread; its mappings are read by any.

    Attributes:
        versions: those that are watched, and the last of those that were. Replaced, not changed.
        problems: why a version that is to be watched is not, or not as its file says now.
            Replaced, not changed.
        unwatched: models that have no ``monitor.toml``.
        sources: what ``follow`` was given last.
    """

    def __init__(
        self,
        kinds: Sequence[MonitorKind],
        tell: Callable[[WindowReport], None],
        keep: Path | None,
    ) -> None:
        """Watch nothing yet.

        Args:
            kinds: of further monitors.
            tell: called with every report, on the monitors' thread.
            keep: the directory that collected references are kept in; ``None`` for none.
        """
        self.versions: Mapping[Key, VersionMonitor] = {}
        self.problems: Mapping[Key, str] = {}
        self.unwatched: frozenset[str] = frozenset()
        self._kinds: Final = kinds
        self._checks: Final[Mapping[str, Check]] = {kind.name: kind.read for kind in kinds}
        self._tell: Final = tell
        self._keep: Final = keep
        self.sources: Mapping[Key, Source] = {}
        # What each version was last made of: its source, and the files with their marks.
        self._made_of: Final[dict[Key, tuple[Source, dict[Path, object]]]] = {}
        self._leaving: set[Key] = set()

    def is_loaded(self, key: Key) -> bool:
        """Whether the version is there."""
        return key in self.sources

    def loaded(self) -> Iterator[VersionMonitor]:
        """The monitors of the versions that are there."""
        for key, version in self.versions.items():
            if key in self.sources:
                yield version

    def follow(self, sources: Mapping[Key, Source]) -> None:
        """Look at what there is now; blocks while files are read."""
        unwatched = set()
        for key, source in sources.items():
            folder = folder_of(source)
            if folder is None or not (folder / NAME).is_file():
                unwatched.add(source.model)
                self._forget(key)
            elif self._has_changed(key, source):
                self._watch(key, source, folder)
        self.unwatched = frozenset(unwatched)
        # Last: whoever asks takes a source that is not among these for one that is not looked at.
        self.sources = sources
        self._see_out()

    def _has_changed(self, key: Key, source: Source) -> bool:
        made_of = self._made_of.get(key)
        return made_of is None or made_of != (source, {p: _mark(p) for p in made_of[1]})

    def _watch(self, key: Key, source: Source, folder: Path) -> None:
        file = folder / NAME
        marks = {file: _mark(file)}
        before = self.versions.get(key)
        try:
            settings = read_monitor_file(file, self._checks)
            marks |= {path: _mark(path) for path in profile_paths(source, settings, folder)}
            reference = before.reference_for(source, settings) if before is not None else None
            if reference is None:
                reference = reference_of(source, settings, folder, self._keep)
            made = VersionMonitor(source, settings, reference, self._kinds, self._tell, before)
        except GatewayError as error:
            log.warning("model '%s' version '%s' is not monitored as it is to be: %s", *key, error)
            self.problems = {**self.problems, key: str(error)}
        else:
            log.info("model '%s' version '%s' is monitored: %s", *key, made.reference_words())
            self.versions = {**self.versions, key: made}
            self._solve(key)
        self._made_of[key] = (source, marks)

    def _solve(self, key: Key) -> None:
        if key in self.problems:
            self.problems = {k: why for k, why in self.problems.items() if k != key}

    def _forget(self, key: Key) -> None:
        """The version is not to be watched, and nothing is to be told of it."""
        self._solve(key)
        self._made_of.pop(key, None)
        if key in self.versions:
            self.versions = {k: v for k, v in self.versions.items() if k != key}

    def _see_out(self) -> None:
        """Free what unloaded versions have counted; not at once: their last rows may still come."""
        gone = [key for key in self.versions if key not in self.sources]
        for key in gone:
            if key in self._leaving:
                self.versions[key].retire()
                self._made_of.pop(key, None)
        self._leaving = set(gone)
        for key in [*gone[:-MAX_GONE], *(k for k in self.problems if k not in self.sources)]:
            self._forget(key)


def folder_of(source: Source) -> Path | None:
    """The directory of a model, ``None`` where it has none of its own."""
    beside = source.path.parent
    for folder, version in ((beside.parent, beside.name), (beside, source.version)):
        if (folder.name, version) == (source.model, source.version):
            return folder
    return None


def _mark(path: Path) -> object:
    """What tells one state of a file from another; ``None`` where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
