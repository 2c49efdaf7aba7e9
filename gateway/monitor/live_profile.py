"""The reference of a version: read from beside its model, or made of its first predictions."""

import logging
import re
from pathlib import Path
from typing import Final

from gateway.errors import ConfigError
from gateway.monitor.monitor_file import NAME, MonitorSettings
from gateway.monitor.profile import PROFILE_NAME, Profile, ProfileSource
from gateway.monitor.profile_builder import ProfileBuilder
from gateway.monitor.profile_file import read_profile, write_profile
from gateway.stream.block import Block
from gateway.stream.stream import Source

log = logging.getLogger(__name__)

#: Digits of a digest in a file's name.
_DIGEST: Final = 16


class LiveProfile:
    """Collects a version's first predictions into a profile.

    Args:
        rows: how many.
        keep: the file that the profile is kept in, so that a restart does not take other
            predictions for the reference; ``None`` for none.
    """

    def __init__(self, source: Source, rows: int, keep: Path | None) -> None:
        labels = {spec.name: spec.labels for spec in source.signature.outputs if spec.labels}
        self._source: Final = source
        self._rows: Final = rows
        self._keep: Final = keep
        self._builder: Final = ProfileBuilder(rows, labels=labels)

    @property
    def wanted(self) -> int:
        """Rows that are still wanted."""
        return self._rows - self._builder.taken

    def add(self, block: Block) -> Profile | None:
        """Take rows; the profile once there are enough.

        Raises:
            UnlikeBlock: its tensors are not those of the first block.
            ConfigError: the profile cannot be made.
        """
        if not self._builder.add(block):
            return None
        source = ProfileSource(name="live predictions", rows=self._rows)
        profile = self._builder.profile(self._source.digest, source)
        if self._keep is not None:
            self._write(self._keep, profile)
        return profile

    def _write(self, path: Path, profile: Profile) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_profile(path, profile)
        except (OSError, ConfigError) as error:
            log.warning(
                "the reference of model '%s' version '%s' is not kept, a restart will collect "
                "another one: %s",
                self._source.model,
                self._source.version,
                error,
            )


def profile_paths(source: Source, settings: MonitorSettings, folder: Path) -> list[Path]:
    """Where the reference profile of a version may lie, the first that is there goes.

    Args:
        folder: of the model.
    """
    if settings.reference.live:
        return []
    if settings.reference.profile is not None:
        return [settings.reference.profile]
    own, shared = source.path.parent / PROFILE_NAME, folder / PROFILE_NAME
    return [own] if own == shared else [own, shared]


def reference_of(
    source: Source, settings: MonitorSettings, folder: Path, keep: Path | None
) -> Profile | LiveProfile:
    """The reference of a version, or what collects it; blocks while a file is read.

    Args:
        folder: of the model.
        keep: the directory that collected references are kept in; ``None`` for none.

    Raises:
        ConfigError: the profile is not there, cannot be read, or is another model's.
    """
    rows = settings.reference.live
    if not rows:
        paths = profile_paths(source, settings, folder)
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise ConfigError(
                f"there is no reference profile at {' or '.join(map(str, paths))}: make one of the "
                "training data, 'onnx-gateway profile build', or write 'reference = { live = 5000 "
                f"}}' into {folder / NAME} to take the first predictions for it"
            )
        named = settings.reference.profile is not None
        return read_profile(path, None if named else source.digest)
    kept = None if keep is None else keep / _file_name(source, rows)
    if kept is not None and kept.is_file():
        return read_profile(kept, source.digest)
    return LiveProfile(source, rows, kept)


def _file_name(source: Source, rows: int) -> str:
    """A name of its own for each model, version, file and number of rows."""
    digest = source.digest.removeprefix("sha256:")[:_DIGEST]
    parts = (re.sub(r"[^\w.-]", "_", part) for part in (source.model, source.version))
    return f"{'@'.join(parts)}-{digest}-{rows}.json"
