"""What a new version may cost and must keep, held against the version that serves."""

import math
from collections.abc import Iterator, Mapping, Sequence

from gateway.errors import LoadError
from gateway.serving.loaded import LoadedModel
from gateway.serving.signature import TensorSpec


def check_budgets(candidate: LoadedModel, serving: LoadedModel | None) -> None:
    """Raise unless ``candidate`` keeps what its settings' ``validation`` asks of it.

    Args:
        serving: the version that serves now; ``None`` where none does, and then nothing is
            compared.

    Raises:
        LoadError: it does not; the message gives the figures of everything that it exceeds.
    """
    problems = [*_memory(candidate)]
    if serving is not None:
        problems += [*_latency(candidate, serving), *_signature(candidate, serving)]
    if problems:
        raise LoadError(
            f"model {candidate.name!r} version {candidate.version!r}: {'; '.join(problems)}"
        )


def latency_ratio(candidate: Mapping[int, int], serving: Mapping[int, int]) -> float | None:
    """The candidate's latency as a multiple of the serving version's.

    Args:
        candidate, serving: nanoseconds by batch size.

    Returns:
        the ratio of the geometric means over the sizes that both have, in which each size counts
        alike, however long it takes; ``None`` where they have none in common.
    """
    common = candidate.keys() & serving.keys()
    if not common:
        return None
    logarithms = [math.log(candidate[size] / serving[size]) for size in common]
    return math.exp(math.fsum(logarithms) / len(logarithms))


def _memory(candidate: LoadedModel) -> Iterator[str]:
    limit = candidate.settings.validation.max_memory_bytes
    taken = candidate.memory_bytes
    if limit and taken > limit:
        yield (
            f"opening it took {taken / 1e6:.1f} MB of memory, and"
            f" validation.max_memory_bytes allows {limit / 1e6:.1f} MB"
        )


def _latency(candidate: LoadedModel, serving: LoadedModel) -> Iterator[str]:
    limit = candidate.settings.validation.max_latency_ratio
    # Where the serving version was not measured there is nothing to hold the candidate against.
    if not limit or not serving.latency_ns:
        return
    ratio = latency_ratio(candidate.latency_ns, serving.latency_ns)
    if ratio is None:
        yield (
            "its latency could not be measured, and validation.max_latency_ratio limits it: give"
            " sample rows that it accepts in warmup.npz"
        )
    elif ratio > limit:
        sizes = sorted(candidate.latency_ns.keys() & serving.latency_ns.keys())
        times = ", ".join(
            f"{size}: {candidate.latency_ns[size] / 1e6:.3g} instead of"
            f" {serving.latency_ns[size] / 1e6:.3g}"
            for size in sizes
        )
        yield (
            f"it takes {ratio:.2f} times as long as version {serving.version!r}, and"
            f" validation.max_latency_ratio allows {limit:g} (milliseconds by rows: {times})"
        )


def _signature(candidate: LoadedModel, serving: LoadedModel) -> Iterator[str]:
    if not candidate.settings.validation.require_same_signature:
        return
    new, old = candidate.signature, serving.signature
    changes = [
        *_changes("input", new.inputs, old.inputs),
        *_changes("output", new.outputs, old.outputs),
    ]
    if changes:
        yield (
            f"validation.require_same_signature asks for the signature of version"
            f" {serving.version!r}, but {', '.join(changes)}"
        )


def _changes(kind: str, new: Sequence[TensorSpec], old: Sequence[TensorSpec]) -> Iterator[str]:
    after, before = ({spec.name: _words(spec) for spec in specs} for specs in (new, old))
    for name in (*before, *(name for name in after if name not in before)):
        if before.get(name) != after.get(name):
            yield (
                f"{kind} {name!r} is {after.get(name, 'not there')}"
                f" (was {before.get(name, 'not there')})"
            )


def _words(spec: TensorSpec) -> str:
    return f"{spec.datatype.name} {list(spec.shape)}{', optional' if spec.optional else ''}"
