"""Keeps a directory to one process."""

import fcntl
import os
from pathlib import Path
from typing import Final, Self

from gateway.errors import ConfigError

LOCK_NAME: Final = "state.lock"


class DirectoryLock:
    """A directory that this process has for itself until ``release``, or until it dies.

    The lock is the system's (``flock``) on a file in it: that of a killed process is gone with it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, directory: Path) -> Self:
        """Lock ``directory``.

        Raises:
            ConfigError: another process has it.
            OSError: its lock file cannot be made or opened.
        """
        path = directory / LOCK_NAME
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise ConfigError(
                f"the state directory {directory} is in use by another server (process "
                f"{holder or 'unknown'}): stop it, or give this one a directory of its own "
                "(--state-dir)"
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def release(self) -> None:
        """Let others have the directory; again does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
