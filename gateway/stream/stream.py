"""The prediction stream of a gateway: every lane's tap, and everybody who subscribes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.serving.loaded import LoadedModel
from gateway.serving.settings import LabelSettings
from gateway.serving.signature import Signature
from gateway.stream.columns import Columns
from gateway.stream.subscription import Account, Subscription
from gateway.stream.tap import StreamTap


@dataclass(frozen=True, slots=True)
class Source:
    """A model version whose predictions are published.

    Attributes:
        path: the model's file.
        digest: of that file and what lies beside it, ``"sha256:<hex>"``.
        signature: what it takes and gives.
        columns: what of that is published.
    """

    model: str
    version: str
    path: Path
    digest: str
    signature: Signature
    columns: Columns


class PredictionStream:
    """Brings taps and subscriptions together. For the event loop's thread only.

    Attributes:
        subscriptions: those there are, in the order in which they came.
        sources: the versions that are tapped, by model and version. A mapping that is never
            changed, but replaced: any thread may read it.
    """

    def __init__(self) -> None:
        self.subscriptions: Final[list[Subscription]] = []
        self.sources: Mapping[tuple[str, str], Source] = {}
        self._taps: Final[set[StreamTap]] = set()
        self._served: Final[dict[tuple[str, str], int]] = {}
        self._closed: Final[dict[tuple[str, str], Account]] = {}

    def tap(self, loaded: LoadedModel) -> StreamTap:
        """A tap for the lane of a version that begins to serve.

        Raises:
            ConfigError: the model's stream settings do not fit it.
        """
        tap = StreamTap(loaded)
        self._taps.add(tap)
        self._connect(tap)
        source = Source(
            loaded.name, loaded.version, loaded.path, loaded.digest, loaded.signature, tap.columns
        )
        self.sources = {**self.sources, (tap.model, tap.version): source}
        return tap

    def untap(self, tap: StreamTap) -> None:
        """The lane of ``tap`` has closed."""
        if tap in self._taps:
            self._taps.remove(tap)
            key = (tap.model, tap.version)
            self._served[key] = self._served.get(key, 0) + tap.served
            # Where the version is loaded anew, its next tap may be there before this one leaves.
            if all((other.model, other.version) != key for other in self._taps):
                self.sources = {k: source for k, source in self.sources.items() if k != key}

    def subscribe(self, subscription: Subscription) -> None:
        """From now on ``subscription`` gets what the models that it watches answer."""
        self.subscriptions.append(subscription)
        self.reconnect()

    def unsubscribe(self, subscription: Subscription) -> None:
        """From now on it gets nothing more; what it has is its own to deal with, before this."""
        self.subscriptions.remove(subscription)
        self.reconnect()
        for model, account in subscription.accounts.items():
            self._closed.setdefault((subscription.name, model), Account()).add(account)

    def reconnect(self) -> None:
        """A subscription watches other models than before."""
        for tap in self._taps:
            self._connect(tap)

    def accounts(self) -> Iterator[tuple[str, str, Account]]:
        """Subscriber, model and its account: those of one name together, gone ones included."""
        totals: dict[tuple[str, str], Account] = {}
        for key, account in self._closed.items():
            totals.setdefault(key, Account()).add(account)
        for subscription in self.subscriptions:
            for model, account in subscription.accounts.items():
                totals.setdefault((subscription.name, model), Account()).add(account)
        for (name, model), account in sorted(totals.items(), key=lambda entry: entry[0]):
            yield name, model, account

    def buffered_bytes(self) -> dict[str, int]:
        """Memory of what waits, by the subscriber's name."""
        totals: dict[str, int] = {}
        for subscription in self.subscriptions:
            taken = totals.get(subscription.name, 0)
            totals[subscription.name] = taken + subscription.buffered_bytes
        return totals

    def columns(self) -> Iterator[tuple[str, Columns]]:
        """Model, and what a version of it that is loaded publishes."""
        for tap in self._taps:
            yield tap.model, tap.columns

    def label_settings(self, model: str) -> LabelSettings | None:
        """How predictions of ``model`` are kept for labels; ``None`` where they are not."""
        taps = sorted((tap for tap in self._taps if tap.model == model), key=_by_version)
        return taps[-1].labels if taps else None

    def served(self) -> Iterator[tuple[str, str, int]]:
        """Model, version and the rows that it has answered, over all its loads."""
        totals = dict(self._served)
        for tap in self._taps:
            key = (tap.model, tap.version)
            totals[key] = totals.get(key, 0) + tap.served
        for (model, version), rows in sorted(totals.items()):
            yield model, version, rows

    def _connect(self, tap: StreamTap) -> None:
        tap.subscriptions = tuple(
            subscription
            for subscription in self.subscriptions
            if subscription.watches(tap.model)
            and (tap.labels is not None or not subscription.labelled_only)
        )


def _by_version(tap: StreamTap) -> tuple[int, str]:
    """The order of versions: by number, and by text where they are none."""
    return (int(tap.version) if tap.version.isdecimal() else 0, tap.version)
