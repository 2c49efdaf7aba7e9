"""References: read from beside the model, or made of a version's first predictions."""

from pathlib import Path
from typing import Final

from gateway.errors import ConfigError
from gateway.monitor.monitor_file import MonitorSettings
from gateway.monitor.profile import PROFILE_NAME, Profile, ProfileSource
from gateway.monitor.profile_builder import ProfileBuilder
from gateway.monitor.profile_file import read_profile, write_profile
from gateway.stream.block import Block
from gateway.stream.stream import Source


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
            ConfigError: the profile cannot be made or kept.
        """
        if not self._builder.add(block):
            return None
        source = ProfileSource("live", self._rows, "")
        profile = self._builder.profile(self._source.digest, source)
        if self._keep is not None:
            self._keep.parent.mkdir(parents=True, exist_ok=True)
            write_profile(self._keep, profile)
        return profile
