"""All sinks of the operator's file: started with the stream, asked how they are, flushed."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from gateway.monitoring_file import Part
from gateway.stream.sinks import cloud_events, json_lines, kafka, nats, parquet
from gateway.stream.sinks.encoding import timestamp
from gateway.stream.sinks.sink import Sink, SinkSettings
from gateway.stream.sinks.worker import SinkWorker
from gateway.stream.stream import PredictionStream
from gateway.stream.subscription import Account

log = logging.getLogger(__name__)

_Make: TypeAlias = Callable[[Part], tuple[SinkSettings, Sink]]

#: Every type of sink by the name that ``type`` has in the file.
TYPES: Final[Mapping[str, _Make]] = {
    "parquet": parquet.make,
    "json_lines": json_lines.make,
    "cloud_events": cloud_events.make,
    "kafka": kafka.make,
    "nats": nats.make,
}

#: Seconds beyond those of the flush that a thread gets to end.
_MARGIN_S: Final = 1.0


class Sinks:
    """For the event loop's thread.

    Attributes:
        workers: one for each sink, once they are started.

    Raises:
        ConfigError: a table of a sink is wrong.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        made = [(part, TYPES[part.type(TYPES)](part)) for part in parts]
        self.workers: Final[list[SinkWorker]] = []
        self._made: Final = made

    def start(self, stream: PredictionStream) -> None:
        """Subscribe every sink to ``stream``; from now on they deliver."""
        later = asyncio.get_running_loop().call_later
        for part, (settings, sink) in self._made:
            worker = SinkWorker(settings, sink, part.scrub, later=later)
            self.workers.append(worker)
            stream.subscribe(worker.subscription)
            worker.start()
            log.info("sink '%s' (%s) gets the predictions", settings.name, settings.type)

    def status(self) -> list[dict[str, Any]]:
        """How each sink fares, as JSON values; secrets are not among them."""
        return [_status(worker) for worker in self.workers]

    async def close(self, stream: PredictionStream, flush_s: float) -> None:
        """Deliver within ``flush_s`` seconds what waits, and end; tell what is lost."""
        stream.flush()
        for worker in self.workers:
            stream.unsubscribe(worker.subscription)
            worker.stop(flush_s)
        ends = [asyncio.to_thread(w.join, flush_s + _MARGIN_S) for w in self.workers]
        ended = await asyncio.gather(*ends)
        for worker, in_time in zip(self.workers, ended, strict=True):
            rest = worker.subscription.buffered_rows
            accounts = worker.subscription.accounts.values()
            lost = sum(account.lost.get("shutdown", 0) for account in accounts)
            if lost or rest:
                log.warning(
                    "sink '%s': %d predictions were not delivered before the end%s",
                    worker.settings.name,
                    lost + rest,
                    "" if in_time else "; it hangs",
                )


def _status(worker: SinkWorker) -> dict[str, Any]:
    settings, health, subscription = worker.settings, worker.health, worker.subscription
    return {
        "sink": settings.name,
        "type": settings.type,
        "state": {None: "new", True: "up", False: "down"}[health.up],
        "models": list(settings.models),
        "buffered_bytes": subscription.buffered_bytes,
        "buffer_bytes": settings.buffer_bytes,
        "retries": health.retries,
        "last_error": health.last_error,
        "last_error_at": timestamp(health.last_error_at) if health.last_error_at else None,
        "last_delivery_at": timestamp(health.last_delivery_at) if health.last_delivery_at else None,
        "accounts": [
            _account(model, account) for model, account in sorted(subscription.accounts.items())
        ],
    }


def _account(model: str, account: Account) -> dict[str, Any]:
    # The sink's thread may count meanwhile: what is left over counts as buffered, so it adds up.
    delivered, lost = account.delivered, dict(account.lost)
    return {
        "model": model,
        "served": account.served,
        "sampled_out": account.sampled_out,
        "dropped": dict(account.dropped),
        "delivered": delivered,
        "lost": lost,
        "buffered": account.put - delivered - sum(lost.values()),
    }
