"""The batch probe: proves by running which axis of each tensor holds the batch, if any does.

A graph's dynamic dimension is a claim of its exporter. Real exports fail at one batch size, or
change a row's result with its neighbours; such a model must be served one request at a time. The
probe runs the same rows alone and together and believes only what comes out the same.

Nothing here knows ONNX Runtime: the model is a callable.
"""

import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.serving.axes import Axes, guess_axes
from gateway.serving.proof import (
    PROVEN_SIZES,
    BatchFailedError,
    BatchProof,
    BatchRefusedError,
    Run,
    Sample,
    first_line,
)
from gateway.serving.samples import RECIPES, Feeds, make_rows, split_rows, stack
from gateway.serving.settings import ModelSettings, TensorSettings
from gateway.serving.signature import Signature, TensorSpec
from gateway.types import Array

log = logging.getLogger(__name__)

#: Different rows that are run alone; larger batches repeat them in another order.
DISTINCT_ROWS: Final = 5
#: The largest batch size that is chosen where the settings name none.
DEFAULT_CAP: Final = 32
#: The smallest batch is chosen whose rows cost no more than the cheapest ones over this: what a
#: larger one saves beyond that is not worth its latency.
WORTHWHILE: Final = 0.95
#: What a batch costs the gateway beside the run itself; it speaks for larger batches.
BATCH_OVERHEAD_NS: Final = 50_000
#: No batch is grown to take longer than this where the settings give no latency objective.
TOO_SLOW_NS: Final = 200_000_000
#: Bytes of inputs that a trial batch may take; larger ones are not tried.
MOST_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Budget:
    """How long the probe may take, in seconds."""

    proof_s: float = 15.0
    measurement_s: float = 3.0


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What the probe found.

    Attributes:
        signature: with batch axes where the model proved them.
        latency_ns: median time of one run by batch size, ascending; ``{1: ns}`` for a model served
            one request at a time; empty where no sample could be run.
        notes: why it is served one request at a time, or with a smaller batch than asked for.
        rows, axes: the sample rows that the model accepted, for warming further sessions up.
    """

    signature: Signature
    latency_ns: dict[int, int]
    notes: tuple[str, ...]
    rows: tuple[Feeds, ...] = ()
    axes: Axes = field(default_factory=dict)

    def feed(self, size: int) -> Feeds:
        """Sample inputs for a batch of ``size`` rows; there must be ``rows``."""
        return stack([self.rows[index % len(self.rows)] for index in range(size)], self.axes)


class _Probe:
    """One probe of one model; see ``probe``."""

    def __init__(
        self,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        run: Run,
        trial: Run | None,
        settings: ModelSettings,
        arrays: Mapping[str, Array] | None,
        coarse: bool,
        budget: Budget,
        clock: Clock,
    ) -> None:
        # A default of fixed shape stays what it is; one that may grow must be seen growing.
        self.fed = [spec for spec in inputs if not spec.optional or -1 in spec.shape]
        self.outputs = outputs
        self.names = [spec.name for spec in outputs]
        self.run_model = run
        self.try_model = trial or run
        self.settings = settings
        self.arrays = arrays
        self.coarse = coarse
        self.budget = budget
        self.deadline = time.monotonic() + budget.proof_s
        self.clock = clock
        self.last_refusal = ""

    def find_sample(self, axes: Axes, count: int) -> Sample | None:
        """Rows that the model runs one by one, or ``None`` where it refuses all that we know."""
        if self.arrays is not None:
            return self._try(axes, split_rows(self.arrays, self.fed, axes, count))
        tried: set[tuple[str, tuple[tuple[int, ...], ...]]] = set()
        for recipe in RECIPES:
            rows = make_rows(self.fed, axes, recipe, count)
            key = (recipe.style, tuple(array.shape for array in rows[0].values()))
            if key in tried or sum(array.nbytes for array in rows[0].values()) > MOST_BYTES:
                continue
            tried.add(key)
            sample = self._try(axes, rows)
            if sample is not None or time.monotonic() > self.deadline:
                return sample
        return None

    def _try(self, axes: Axes, rows: list[Feeds]) -> Sample | None:
        try:
            alone = [self.try_model(row, self.names) for row in rows]
        except GatewayError as error:
            self.last_refusal = first_line(error)
            return None
        fixed = all(
            size >= 0 or axis == axes[spec.name]
            for spec in self.fed
            for axis, size in enumerate(spec.shape)
        )
        return Sample(axes, rows, alone, fixed)

    def proof(self, sample: Sample) -> BatchProof:
        return BatchProof(sample, self.outputs, self.try_model, self.coarse)

    def measure(self, sample: Sample, axes: Axes) -> tuple[dict[int, int], str]:
        """Median time by batch size up to the one that is worth it, and a note or ``""``.

        Raises:
            BatchRefusedError: a larger batch than those of the proof gives other results.
        """
        largest = self.settings.max_batch_size or DEFAULT_CAP
        chosen = self.settings.max_batch_size is not None
        sizes = [2**power for power in range(largest.bit_length()) if 2**power < largest]
        sizes.append(largest)
        row_bytes = sum(array.nbytes for array in sample.rows[0].values())
        end_ns = self.clock() + int(self.budget.measurement_s * 1e9)
        objective_ns = int(self.settings.latency_objective_ms * 1e6)
        too_slow = min(TOO_SLOW_NS, objective_ns or TOO_SLOW_NS)
        latency: dict[int, int] = {}
        row_ns: dict[int, float] = {}
        note = ""
        for size in sizes:
            if size > 1 and (self.clock() > end_ns or size * row_bytes > MOST_BYTES):
                break
            if size > 1 and self.settings.probe:
                try:
                    self.proof(sample).expect(size, axes)
                except BatchFailedError as error:
                    if chosen or size <= PROVEN_SIZES[-1]:
                        raise
                    note = str(error)
                    break
            least, median = self._time(sample, size)
            if not chosen and size > 1 and least > too_slow:
                break
            latency[size] = median
            row_ns[size] = (least + BATCH_OVERHEAD_NS) / size
        if chosen:
            tried = max(latency)
            note = "" if tried == largest else f"batches above {tried} were not tried at load"
            return latency, note
        cheap = min(row_ns.values()) / WORTHWHILE
        best = min(size for size, ns in row_ns.items() if ns <= cheap)
        return {size: ns for size, ns in latency.items() if size <= best}, note

    def _time(self, sample: Sample, size: int) -> tuple[int, int]:
        """The least and the median time of a few runs, in nanoseconds; the first is not counted."""
        count = len(sample.rows)
        feeds = stack([sample.rows[index % count] for index in range(size)], sample.axes)
        self.run_model(feeds, self.names)
        times: list[int] = []
        end_ns = self.clock() + int(self.budget.measurement_s / 30 * 1e9)
        while len(times) < 30 and (len(times) < 3 or self.clock() < end_ns):
            start_ns = self.clock()
            self.run_model(feeds, self.names)
            times.append(self.clock() - start_ns)
        return min(times), int(statistics.median(times))


def probe(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    run: Run,
    settings: ModelSettings,
    *,
    trial: Run | None = None,
    arrays: Mapping[str, Array] | None = None,
    unshaped: frozenset[str] = frozenset(),
    coarse: bool = False,
    budget: Budget | None = None,
    clock: Clock = time.perf_counter_ns,
) -> ProbeResult:
    """Find out how a model may be batched, and how long its batches take. Blocks for seconds.

    Args:
        inputs, outputs: as the graph declares them, without batch axes.
        run: runs the model; what is measured.
        trial: runs the model on inputs that nobody vouches for, with a time limit perhaps; ``run``
            where ``None``.
        settings: what the user wants: ``max_batch_size``, ``probe``, axes by tensor.
        arrays: the user's sample rows by input name; ``None`` makes samples up.
        unshaped: outputs of which the graph does not tell the rank.
        coarse: whether the device rounds FP32 more than FP32 does (TF32).
        budget: how long it may take.
        clock: nanoseconds, by which runs are measured; it may stand still between them.

    Raises:
        LoadError: the settings or ``arrays`` do not fit the inputs.
    """
    work = _Probe(inputs, outputs, run, trial, settings, arrays, coarse, budget or Budget(), clock)
    wanted = settings.max_batch_size
    guesses = [] if wanted == 0 else guess_axes(work.fed, settings.inputs)
    reasons: list[str] = []
    sample: Sample | None = None
    for axes in guesses:
        if reasons and time.monotonic() > work.deadline:
            break
        tried = work.find_sample(axes, DISTINCT_ROWS)
        sample = sample or tried
        latency: dict[int, int] = {}
        note = ""
        try:
            if not settings.probe:
                found = _declared(work, axes)
            elif tried is None:
                raise BatchRefusedError(_no_sample(work))
            else:
                found = work.proof(tried).axes(wanted or DEFAULT_CAP, work.deadline)
            if tried is not None:
                latency, note = work.measure(tried, found)
        except BatchRefusedError as refusal:
            reasons.append(str(refusal))
            continue
        largest = wanted or max(latency, default=DEFAULT_CAP)
        signature = Signature(
            tuple(_with_axis(spec, axes.get(spec.name)) for spec in inputs),
            tuple(_with_axis(spec, found[spec.name]) for spec in _observed(work, tried, unshaped)),
            largest,
        )
        rows = () if tried is None else tuple(tried.rows)
        return ProbeResult(signature, latency, (note,) if note else (), rows, axes)
    return _unbatched(work, inputs, sample, reasons, unshaped)


def _unbatched(
    work: _Probe,
    inputs: Sequence[TensorSpec],
    sample: Sample | None,
    reasons: list[str],
    unshaped: frozenset[str],
) -> ProbeResult:
    """The model as it is served where no guess held, or there was none."""
    notes: tuple[str, ...] = ()
    if reasons:
        notes = (f"served one request at a time: {reasons[0]}",)
    elif work.settings.max_batch_size:
        notes = (
            f"served one request at a time: max_batch_size is {work.settings.max_batch_size}, but"
            " no input has a dynamic dimension",
        )
    else:
        log.debug("no input has a dynamic dimension, or max_batch_size is 0: not batched")
    if sample is None:
        sample = work.find_sample({spec.name: None for spec in work.fed}, 1)
    if sample is None and not reasons:
        notes = (*notes, f"not warmed up: {_no_sample(work)}")
    return ProbeResult(
        Signature(tuple(inputs), _observed(work, sample, unshaped), 0),
        {} if sample is None else {1: work._time(sample, 1)[1]},
        notes,
        () if sample is None else tuple(sample.rows),
        {} if sample is None else sample.axes,
    )


def _no_sample(work: _Probe) -> str:
    origin = "made-up inputs" if work.arrays is None else "the inputs of the warm-up file"
    mend = (
        "give sample rows in a .npz file that the setting `warmup` names"
        if work.arrays is None
        else "mend that file"
    )
    return f"the model refuses {origin} ({work.last_refusal}); {mend}"


def _declared(work: _Probe, axes: Axes) -> Axes:
    """The outputs' batch axes as the settings or the graph have them, for ``probe = false``."""
    symbols = {spec.symbols[axis] for spec in work.fed if (axis := axes[spec.name]) is not None} - {
        ""
    }
    found: Axes = {}
    for spec in work.outputs:
        stated = work.settings.outputs.get(spec.name, TensorSettings()).batch_axis
        dynamic = [axis for axis, size in enumerate(spec.shape) if size < 0]
        named = [axis for axis in dynamic if spec.symbols[axis] in symbols]
        if stated is None and not dynamic:
            raise BatchRefusedError(f"output {spec.name!r} has no dynamic dimension")
        found[spec.name] = (named or dynamic)[0] if stated is None else stated
    return found


def _with_axis(spec: TensorSpec, axis: int | None) -> TensorSpec:
    if axis is None:
        return spec
    shape = (*spec.shape[:axis], -1, *spec.shape[axis + 1 :])
    return replace(spec, shape=shape, batch_axis=axis)


def _observed(
    work: _Probe, sample: Sample | None, unshaped: frozenset[str]
) -> tuple[TensorSpec, ...]:
    """The outputs' descriptions, mended where they contradict what the model gave."""
    if sample is None:
        return tuple(work.outputs)
    return tuple(
        _mended(spec, result.shape, sample.fixed, spec.name in unshaped)
        for spec, result in zip(work.outputs, sample.alone[0], strict=True)
    )


def _mended(spec: TensorSpec, seen: tuple[int, ...], fixed: bool, unshaped: bool) -> TensorSpec:
    if unshaped or len(seen) != len(spec.shape):
        # One sample cannot tell which dimensions vary, unless no input's does.
        shape = seen if fixed else (-1,) * len(seen)
        return replace(spec, shape=shape, symbols=("",) * len(seen))
    shape = tuple(
        declared if declared in (-1, size) else -1
        for declared, size in zip(spec.shape, seen, strict=True)
    )
    return replace(spec, shape=shape)
