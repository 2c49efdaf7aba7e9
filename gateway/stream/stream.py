"""The prediction stream of a gateway: every lane's tap, and everybody who subscribes."""

from collections.abc import Iterator
from typing import Final

from gateway.serving.loaded import LoadedModel
from gateway.stream.subscription import Subscription
from gateway.stream.tap import StreamTap


class PredictionStream:
    """Brings taps and subscriptions together. For the event loop's thread only.

    Attributes:
        subscriptions: those there are, in the order in which they came.
    """

    def __init__(self) -> None:
        self.subscriptions: Final[list[Subscription]] = []
        self._taps: Final[set[StreamTap]] = set()
        self._served: Final[dict[tuple[str, str], int]] = {}

    def tap(self, loaded: LoadedModel) -> StreamTap:
        """A tap for the lane of a version that begins to serve.

        Raises:
            ConfigError: the model's stream settings do not fit it.
        """
        tap = StreamTap(loaded)
        self._taps.add(tap)
        self._connect(tap)
        return tap

    def untap(self, tap: StreamTap) -> None:
        """The lane of ``tap`` has closed."""
        if tap in self._taps:
            self._taps.remove(tap)
            key = (tap.model, tap.version)
            self._served[key] = self._served.get(key, 0) + tap.served

    def subscribe(self, subscription: Subscription) -> None:
        """From now on ``subscription`` gets what the models that it watches answer."""
        self.subscriptions.append(subscription)
        for tap in self._taps:
            self._connect(tap)

    def unsubscribe(self, subscription: Subscription) -> None:
        """From now on it gets nothing more; what it has is its own to deal with."""
        self.subscriptions.remove(subscription)
        for tap in self._taps:
            self._connect(tap)

    def served(self) -> Iterator[tuple[str, str, int]]:
        """Model, version and the rows that it has answered, over all its loads."""
        totals = dict(self._served)
        for tap in self._taps:
            key = (tap.model, tap.version)
            totals[key] = totals.get(key, 0) + tap.served
        for (model, version), rows in sorted(totals.items()):
            yield model, version, rows

    def _connect(self, tap: StreamTap) -> None:
        tap.subscriptions = tuple(s for s in self.subscriptions if s.watches(tap.model))
