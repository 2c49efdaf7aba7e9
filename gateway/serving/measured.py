"""The runs of a load: measured, and out of the way of those who are served meanwhile."""

import time
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.clock import Clock
from gateway.serving.background import Background
from gateway.serving.onnx.session import OnnxSession
from gateway.types import Array

#: Runs that take longer than this stand back; to shorter ones the way to another thread would be
#: most of what they take.
LONG_RUN_NS: Final = 500_000


class MeasuredRuns:
    """Runs a session, and knows how long its runs have taken.

    Attributes:
        device: the session's.
        spent_ns: nanoseconds of all runs so far: by the clock; or, where the calling thread does
            all of the work, by what it had of a core, so that a busy machine does not look like a
            slow model.
    """

    def __init__(self, session: OnnxSession, background: Background | None = None) -> None:
        """Run ``session``, where runs are long in the ``background``, if there is one."""
        self.device: Final = session.device
        self.spent_ns = 0
        self._session = session
        self._background = background
        self._clock: Clock = time.thread_time_ns if session.alone else time.perf_counter_ns
        self._are_long = False

    def run(
        self, feeds: Mapping[str, Array], outputs: Sequence[str], limit_s: float | None = None
    ) -> list[Array]:
        """See ``OnnxSession.run``."""
        if self._background is None or not self._are_long:
            return self._run(feeds, outputs, limit_s)
        return self._background.run(lambda: self._run(feeds, outputs, limit_s))

    def _run(
        self, feeds: Mapping[str, Array], outputs: Sequence[str], limit_s: float | None
    ) -> list[Array]:
        began_ns = self._clock()
        try:
            return self._session.run(feeds, outputs, limit_s)
        finally:
            took_ns = self._clock() - began_ns
            self.spent_ns += took_ns
            self._are_long = took_ns > LONG_RUN_NS
