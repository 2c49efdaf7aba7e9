"""What watches the predictions of one model version, and how one comes to be.

A monitor is given all predictions in their order and asked at the end of each window what it has
found. To add one: a ``MonitorKind`` in the list that ``app.py`` gives to ``Monitors``, under the
name of its table in ``monitor.toml``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.monitor.findings import Finding, WindowReport
from gateway.monitor.monitor_file import MonitorSettings
from gateway.monitor.profile import Profile
from gateway.monitor.windows import Window
from gateway.stream.block import Block
from gateway.stream.stream import Source


@dataclass(frozen=True, slots=True)
class Watched:
    """What a monitor is made for.

    Attributes:
        source: the model version.
        settings: all of its ``monitor.toml``.
        profile: what its predictions are compared with.
    """

    source: Source
    settings: MonitorSettings
    profile: Profile


class WindowMonitor(Protocol):
    """Watches one model version. Used on the monitors' thread alone."""

    def take(self, block: Block) -> None:
        """The next predictions, many blocks as one. None of them is in two steps of windows.

        Raises ``UnlikeBlock`` where its tensors are not those of the profile: it is then lost.
        """

    def end(self, window: Window) -> Iterable[Finding]:
        """A step of the window has ended; what is found in the window.

        A window that slides is its last ``settings.window.parts`` steps. What is found is told of
        only where ``window.full``; where not ``window.judged``, it is to be ``NO_DATA``.
        """


class MonitorKind(Protocol):
    """Makes monitors of one kind.

    Attributes:
        name: of its table in ``monitor.toml``; a model whose file has no such table has none.
    """

    @property
    def name(self) -> str:
        """See above."""

    def read(self, where: str, value: Any) -> Any:
        """Its settings, of the table ``value`` at ``where``. Raises ``ConfigError``."""

    def make(self, settings: Any, watched: Watched) -> WindowMonitor:
        """A monitor with what ``read`` gave. Raises ``ConfigError`` where it does not fit."""


class ReportListener(Protocol):
    """Is told of every window."""

    def report(self, report: WindowReport) -> None:
        """A window has ended. Called on the event loop's thread; must not wait or raise."""
