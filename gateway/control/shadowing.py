"""One shadow at work: its own lane, the copies that it gets, and the comparison of the answers."""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Any, Final

import numpy as np

from gateway.control.traffic import ShadowPlan, as_table
from gateway.dispatch.mirror import Mirror, Pair
from gateway.dispatch.pace import Pace, load_now
from gateway.errors import Conflict
from gateway.evidence import pairs as evidence
from gateway.rollout_metrics import ShadowSample
from gateway.serving.binder import Layout
from gateway.serving.lane import Lane
from gateway.serving.registry import ModelVersion
from gateway.serving.signature import Signature, TensorSpec
from gateway.serving.tensor_json import tensor_document
from gateway.types import Array, InferInput

log = logging.getLogger(__name__)

#: Seconds between two decisions about how many copies can be afforded.
PACE_S: Final = 0.05
#: Longer than any run.
ANY_NS: Final = 2**62
#: Seconds after which copies that are held go to the shadow, however few they are.
FLUSH_S: Final = 0.2
#: Seconds after which pairs are compared, and how many pairs, or bytes of one row each, are not
#: left waiting even that long. A lot of a few pairs takes as long as one of hundreds, and the
#: primary may wait for the interpreter meanwhile.
COMPARE_S: Final = 2.0
COMPARE_AT: Final = 2048
COMPARE_BYTES: Final = 32 << 20
#: Lots that may wait for the comparison while copies are still made.
WAITING_LOTS: Final = 4


class Shadowing:
    """Sends copies of what ``primary`` is asked to ``shadow``, and compares what the two answer.

    Event loop's thread only; the comparison itself runs on a thread of its own.
    """

    def __init__(self, plan: ShadowPlan, primary: ModelVersion, shadow: ModelVersion) -> None:
        """Begin; both versions are READY.

        Raises:
            Conflict: the two do not take and give the same tensors.
        """
        assert primary.lane is not None
        assert shadow.lane is not None
        loaded = shadow.lane.loaded
        self.check(primary, shadow)
        self.plan: Final = plan
        self.primary: Final = primary
        self.shadow: Final = shadow
        self._signature: Final = loaded.signature
        self._loop = asyncio.get_running_loop()
        # Of short models a whole batch of copies runs on the loop sooner than it is handed to a
        # thread and back: both would have to take the interpreter from the loop for it.
        short = primary.lane.inline and shadow.lane.inline
        self._lane = Lane(
            loaded,
            self._loop,
            inline_threshold_ns=ANY_NS if short else 0,
            background=not short,
        )
        self._pace = Pace()
        self.mirror: Final = Mirror(
            self._lane,
            plan.percent / 100,
            self._pace,
            self._keep,
            primary=primary.lane,
            # A thread that wakes for each of them disturbs a short primary more than one batch of
            # copies; on the loop they come between two requests.
            hold=1 if short or not primary.lane.inline else self._lane.max_rows,
        )
        self._comparison = evidence.PairComparison(
            [spec.name for spec in loaded.signature.outputs],
            [spec.datatype for spec in loaded.signature.outputs],
            relative_tolerance=plan.relative_tolerance,
            absolute_tolerance=plan.absolute_tolerance,
            min_agreement=plan.min_agreement,
            max_flips=plan.max_flips,
            keep_worst=plan.keep_worst,
        )
        self._waiting: list[Pair] = []
        self._lot = max(min(COMPARE_AT, COMPARE_BYTES // _row_bytes(loaded.signature)), 1)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compare")
        self._comparing: asyncio.Future[None] | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._update_pace(time.monotonic())
        self._compare_in_turn()
        self._flush_in_turn()

    @staticmethod
    def check(primary: ModelVersion, shadow: ModelVersion) -> None:
        """Raise ``Conflict`` unless both, which are READY, take and give the same tensors."""
        assert primary.lane is not None
        assert shadow.lane is not None
        ours, theirs = primary.lane.loaded.signature, shadow.lane.loaded.signature
        for kind, mine, other in (
            ("input", ours.inputs, theirs.inputs),
            ("output", ours.outputs, theirs.outputs),
        ):
            expected = [(spec.name, spec.datatype.name) for spec in mine]
            given = [(spec.name, spec.datatype.name) for spec in other]
            if expected != given:
                raise Conflict(
                    f"{shadow.label} cannot shadow {primary.label}: its {kind}s are {given}, "
                    f"those of the primary {expected}"
                )

    async def report(self) -> dict[str, Any]:
        """How alike the two are, by all pairs so far, and what became of each request."""
        await self._compare_all()
        compared = await self._loop.run_in_executor(self._thread, self._comparison.report)
        mirror = self.mirror
        return {
            "model": self.primary.name,
            "primary": self.primary.version,
            "shadow": {"model": self.shadow.name, "version": self.shadow.version},
            "plan": as_table(self.plan),
            "requests": {
                "offered": mirror.offered,
                "sampled_out": mirror.sampled_out,
                "skipped": dict(mirror.skipped),
                "sent": mirror.sent,
                "paired": mirror.paired_count,
                "cancelled": mirror.cancelled_pairs,
                "open": mirror.open,
            },
            **compared,
        }

    def sample(self) -> ShadowSample:
        """What became of each request, for the metrics."""
        mirror = self.mirror
        skipped = {f"skipped_{reason}": count for reason, count in sorted(mirror.skipped.items())}
        return ShadowSample(
            model=self.shadow.name,
            version=self.shadow.version,
            requests={
                "sampled_out": mirror.sampled_out,
                **skipped,
                "paired": mirror.paired_count,
                "cancelled": mirror.cancelled_pairs,
            },
        )

    async def worst(self) -> list[dict[str, Any]]:
        """The pairs that disagree most: inputs and both outputs as tensors of the protocol."""
        await self._compare_all()
        kept_pairs = await self._loop.run_in_executor(self._thread, lambda: self._comparison.worst)
        signature = self._signature
        return [
            {
                "inputs": [tensor_document(*tensor) for tensor in self._inputs(kept.key)],
                "primary": _documents(signature.outputs, kept.primary),
                "shadow": _documents(signature.outputs, kept.shadow),
                "distance": kept.distance,
            }
            for kept in kept_pairs
        ]

    async def close(self) -> None:
        """End it; what is still on its way is not compared."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await self._lane.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _keep(self, pair: Pair) -> None:
        self._waiting.append(pair)
        if len(self._waiting) < self._lot:
            return
        if self._comparing is None:
            self._start_comparing()
        self.mirror.paused = len(self._waiting) >= WAITING_LOTS * self._lot

    def _start_comparing(self) -> asyncio.Future[None]:
        pairs, self._waiting = self._waiting, []
        self.mirror.paused = False
        future = self._loop.run_in_executor(self._thread, self._compare, pairs)
        self._comparing = future
        future.add_done_callback(self._compared)
        return future

    def _compared(self, future: "asyncio.Future[None]") -> None:
        self._comparing = None
        if not future.cancelled() and (error := future.exception()) is not None:
            log.error("answers of %s could not be compared", self.shadow.label, exc_info=error)

    async def _compare_all(self) -> None:
        if self._waiting:
            # The thread takes one batch after the other, so those before it are over by then.
            await asyncio.wait([self._start_comparing()])

    def _compare_in_turn(self) -> None:
        if self._waiting and self._comparing is None:
            self._start_comparing()
        self._timers["compare"] = self._loop.call_later(COMPARE_S, self._compare_in_turn)

    def _compare(self, pairs: list[Pair]) -> None:
        both = []
        failed = [0, 0, 0]
        for pair in pairs:
            primary, shadow = pair.primary, pair.shadow
            assert primary is not None
            assert shadow is not None
            mine, theirs = primary.outputs, shadow.outputs
            if mine is not None and theirs is not None:
                both.append(evidence.Pair(mine, theirs, primary.ns, shadow.ns, pair.inputs))
            else:
                failed[(mine is None) + 2 * (theirs is None) - 1] += 1
        self._comparison.add(both)
        self._comparison.add_errors(*failed)

    def _flush_in_turn(self) -> None:
        self.mirror.flush()
        self._timers["flush"] = self._loop.call_later(FLUSH_S, self._flush_in_turn)

    def _update_pace(self, due_s: float) -> None:
        self._pace.update(load_now(), due_s)
        self.mirror.update()
        due_s = time.monotonic() + PACE_S
        self._timers["pace"] = self._loop.call_later(PACE_S, self._update_pace, due_s)

    def _inputs(self, key: Any) -> list[tuple[str, Any, Array]]:
        """Name, datatype and array of each input that a kept pair was given."""
        if isinstance(key, list):
            tensors: list[InferInput] = key
            return [(t.name, t.datatype, t.array()) for t in tensors]
        layout, rows, buffers = key
        return [
            (spec.name, spec.datatype, _array(spec, layout, place, rows, buffers[place]))
            for place, spec in enumerate(self._signature.inputs)
            if buffers[place] is not None
        ]


def _row_bytes(signature: Signature) -> int:
    """What one row of inputs and both outputs takes at least; what varies counts as one element."""
    specs = (*signature.inputs, *signature.outputs, *signature.outputs)
    return sum(prod(max(size, 1) for size in s.shape) * max(s.datatype.itemsize, 1) for s in specs)


def _array(spec: TensorSpec, layout: Layout, place: int, rows: int, buffer: memoryview) -> Array:
    item = layout.items[place]
    axis = layout.axes[place]
    assert item is not None
    shape = item if axis is None else (*item[:axis], rows, *item[axis:])
    return np.frombuffer(buffer, spec.datatype.numpy).reshape(shape)


def _documents(specs: tuple[TensorSpec, ...], arrays: list[Array]) -> list[dict[str, Any]]:
    return [
        tensor_document(spec.name, spec.datatype, array)
        for spec, array in zip(specs, arrays, strict=True)
    ]
