"""How alike a primary's and a shadow's answers to the same requests are."""

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gateway.evidence.confidence import Moments, proportion_bounds
from gateway.evidence.gates import Verdict
from gateway.evidence.histogram import Histogram
from gateway.evidence.output_comparison import OutputComparison, mean_table, share_table
from gateway.types import Array, DataType

#: Chance that an interval of the report misses, at any look; the verdict's two share it.
ALPHA: Final = 0.05


@dataclass(slots=True)
class Pair:
    """Both answers to one request.

    Attributes:
        primary, shadow: the output arrays, in the order of the comparison's names, rows first.
        primary_ns, shadow_ns: how long each took.
        key: whatever finds the request again, its inputs say; kept with a pair that is kept.
    """

    primary: list[Array]
    shadow: list[Array]
    primary_ns: int
    shadow_ns: int
    key: object = None


@dataclass(frozen=True, slots=True)
class KeptPair:
    """One of the pairs that disagree most, with copies of both answers.

    ``distance`` is the largest of any output: 0 for equals to 1 for nothing in common, 2 where
    shapes or what is not finite differ.
    """

    distance: float
    key: object
    primary: list[Array]
    shadow: list[Array]


class PairComparison:
    """Compares pairs of answers as they come, in constant memory. One thread.

    A pair agrees if all its outputs do; a request that only one side answered is a pair that does
    not. The verdict takes intervals that hold at every look: pass once the share of agreeing pairs
    is surely at least ``min_agreement`` and that of flipped ones surely at most ``max_flips``, fail
    once either surely is not.
    """

    def __init__(
        self,
        output_names: Sequence[str],
        datatypes: Sequence[DataType | None] = (),
        *,
        relative_tolerance: float,
        absolute_tolerance: float,
        min_agreement: float,
        max_flips: float,
        keep_worst: int,
    ) -> None:
        types = datatypes or [None] * len(output_names)
        self._outputs = [
            OutputComparison(name, datatype, relative_tolerance, absolute_tolerance)
            for name, datatype in zip(output_names, types, strict=True)
        ]
        self._min_agreement = min_agreement
        self._max_flips = max_flips
        self._keep = keep_worst
        # A heap of the kept pairs, the least of them first; the number is for equal distances.
        self._worst: list[tuple[float, int, KeptPair]] = []
        self._numbers = itertools.count()
        self._pairs = self._agreeing = self._scored = self._flipped = 0
        self._primary_errors = self._shadow_errors = self._both_errors = 0
        self._latency_ms = Moments()
        self._primary_ns, self._shadow_ns = Histogram(), Histogram()

    def add(self, pairs: Sequence[Pair]) -> None:
        """Compare ``pairs``; their arrays are not needed after the call."""
        if not pairs:
            return
        agree = np.ones(len(pairs), bool)
        scored, flips = np.zeros((2, len(pairs)), bool)
        distance = np.zeros(len(pairs))
        for index, output in enumerate(self._outputs):
            likeness = output.add(
                [pair.primary[index] for pair in pairs], [pair.shadow[index] for pair in pairs]
            )
            agree &= likeness.agree
            scored |= likeness.scored
            flips |= likeness.flips
            np.maximum(distance, likeness.distance, out=distance)
        self._pairs += len(pairs)
        self._agreeing += int(np.count_nonzero(agree))
        self._scored += int(np.count_nonzero(scored))
        self._flipped += int(np.count_nonzero(flips))
        self._add_latencies(pairs)
        for index in np.flatnonzero(~agree).tolist():
            self._keep_if_worse(float(distance[index]), pairs[index])

    def add_errors(self, primary_only: int = 0, shadow_only: int = 0, both: int = 0) -> None:
        """Count requests that only the primary, only the shadow, or both failed to answer."""
        self._primary_errors += primary_only
        self._shadow_errors += shadow_only
        self._both_errors += both

    @property
    def worst(self) -> list[KeptPair]:
        """The pairs that disagree most, the worst one first."""
        return [kept for _, _, kept in sorted(self._worst, key=lambda entry: -entry[0])]

    def report(self) -> dict[str, Any]:
        """Everything that was found, as JSON values."""
        verdict, reasons = self._verdict()
        return {
            "verdict": str(verdict),
            "reasons": reasons,
            "pairs": self._pairs,
            "agreement": share_table(self._agreeing, self._compared, ALPHA / 2),
            "argmax_flips": share_table(self._flipped, self._scored, ALPHA / 2),
            "errors": self._errors_table(),
            "latency": self._latency_table(),
            "outputs": [output.table(ALPHA) for output in self._outputs],
        }

    @property
    def _compared(self) -> int:
        return self._pairs + self._primary_errors + self._shadow_errors

    def _add_latencies(self, pairs: Sequence[Pair]) -> None:
        primary = np.array([pair.primary_ns for pair in pairs], np.float64)
        shadow = np.array([pair.shadow_ns for pair in pairs], np.float64)
        self._latency_ms.add((shadow - primary) / 1e6)
        self._primary_ns.add(primary)
        self._shadow_ns.add(shadow)

    def _keep_if_worse(self, distance: float, pair: Pair) -> None:
        full = len(self._worst) >= self._keep
        if self._keep == 0 or (full and distance <= self._worst[0][0]):
            return
        kept = KeptPair(
            distance,
            pair.key,
            [array.copy() for array in pair.primary],
            [array.copy() for array in pair.shadow],
        )
        entry = (distance, -next(self._numbers), kept)
        if full:
            heapq.heapreplace(self._worst, entry)
        else:
            heapq.heappush(self._worst, entry)

    def _verdict(self) -> tuple[Verdict, list[str]]:
        agreement = _judge(
            "pairs that agree", self._agreeing, self._compared, self._min_agreement, 1.0
        )
        if not self._scored:
            return agreement[0], [agreement[1]]
        flips = _judge(
            "pairs whose highest score is another",
            self._flipped,
            self._scored,
            0.0,
            self._max_flips,
        )
        return Verdict.of_all([agreement[0], flips[0]]), [agreement[1], flips[1]]

    def _errors_table(self) -> dict[str, Any]:
        """Shares of failed requests; what both failed cancels in the difference."""
        total = self._compared + self._both_errors
        shadow_only = proportion_bounds(self._shadow_errors, total, ALPHA / 2)
        primary_only = proportion_bounds(self._primary_errors, total, ALPHA / 2)
        return {
            "requests": total,
            "primary": self._primary_errors + self._both_errors,
            "shadow": self._shadow_errors + self._both_errors,
            "both": self._both_errors,
            "difference": (self._shadow_errors - self._primary_errors) / max(total, 1),
            "low": float(shadow_only[0] - primary_only[1]),
            "high": float(shadow_only[1] - primary_only[0]),
        }

    def _latency_table(self) -> dict[str, Any]:
        """Milliseconds; the difference is shadow minus primary."""
        sides = (("primary", self._primary_ns), ("shadow", self._shadow_ns))
        table: dict[str, Any] = {"difference_ms": mean_table(self._latency_ms, ALPHA)}
        for side, histogram in sides:
            p50, p99 = histogram.quantiles(0.5, 0.99)
            table[side] = {"p50_ms": p50 / 1e6, "p99_ms": p99 / 1e6}
        return table


def _judge(what: str, hits: int, trials: int, least: float, most: float) -> tuple[Verdict, str]:
    """Whether the share surely lies between ``least`` and ``most``, and why."""
    low, high = (float(bound) for bound in proportion_bounds(hits, trials, ALPHA / 2))
    wanted = f"at least {least:.2%}" if most >= 1 else f"at most {most:.2%}"
    words = f"{what}: {hits:,} of {trials:,}, so between {low:.2%} and {high:.2%}"
    if low >= least and high <= most:
        return Verdict.PASS, f"{words}, surely {wanted}"
    if high < least or low > most:
        return Verdict.FAIL, f"{words}, surely not {wanted}"
    return Verdict.INCONCLUSIVE, f"{words}, which may or may not be {wanted}"
