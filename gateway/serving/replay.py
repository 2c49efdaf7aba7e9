"""Replays golden requests: a version that does not answer them as it must does not serve."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from gateway.errors import GatewayError, InvalidTensor, LoadError
from gateway.serving.binder import Bound, InputBinder
from gateway.serving.compare import Deviation, deviation, tolerance_of
from gateway.serving.golden import GoldenRequest, read_golden
from gateway.serving.measured import MeasuredRuns
from gateway.serving.samples import Feeds
from gateway.serving.settings import ModelSettings
from gateway.serving.signature import Signature, TensorSpec
from gateway.types import Array, InferOutput

#: Failed requests that the error tells of; of the others it gives the count.
MOST_TOLD: Final = 3
#: The absolute tolerance as a share of the relative one, where a file gives none.
ABSOLUTE_SHARE: Final = 0.01


def replay_golden(
    files: Sequence[Path],
    signature: Signature,
    settings: ModelSettings,
    sessions: Sequence[MeasuredRuns],
) -> None:
    """Run every golden request as a live one would be run, and compare what comes out.

    Requests go round the sessions. Blocks; for the thread that loads.

    Args:
        files: as ``golden_files`` gives them.
        signature: with the batch axes that the version serves with.

    Raises:
        LoadError: one cannot be read, is refused, or is answered otherwise; the message tells how
            of the first few, and how many there are.
    """
    binder = InputBinder("the model", signature)
    problems: list[str] = []
    for index, file in enumerate(files):
        problem = _replay(file, binder, signature, settings, sessions[index % len(sessions)])
        if problem:
            problems.append(problem)
    if not problems:
        return
    told = "; ".join(problems[:MOST_TOLD])
    if len(problems) > MOST_TOLD:
        told += f"; and {len(problems) - MOST_TOLD} more"
    raise LoadError(
        f"{len(problems)} of {len(files)} golden requests failed: {told}. Mend the version; or,"
        " where the new answers are the right ones, record the files again or widen their"
        " `tolerance`"
    )


def _replay(
    file: Path,
    binder: InputBinder,
    signature: Signature,
    settings: ModelSettings,
    session: MeasuredRuns,
) -> str:
    """What is wrong with one file or its answer, with its path; ``""`` where nothing is."""
    try:
        golden = read_golden(file, signature)
    except LoadError as error:
        return str(error)
    specs = {spec.name: spec for spec in signature.outputs}
    try:
        for output in golden.outputs:
            _check_output(output, specs)
        bound = binder.bind(golden.inputs)
        names = [output.name for output in golden.outputs]
        results = _run(bound, [specs[name] for name in names], signature, settings, session)
    except GatewayError as error:
        return f"{file}: {error}"
    wrong = [
        words
        for output, result in zip(golden.outputs, results, strict=True)
        if (words := _difference(output, result, golden, session.device != "cpu"))
    ]
    return f"{file}: {', '.join(wrong)}" if wrong else ""


def _check_output(output: InferOutput, specs: dict[str, TensorSpec]) -> None:
    spec = specs.get(output.name)
    if spec is None:
        raise InvalidTensor(
            f"output '{output.name}' is expected, which the model does not have; it has"
            f" {', '.join(specs)}"
        )
    if spec.datatype is not output.datatype:
        raise InvalidTensor(
            f"output '{output.name}' is expected as {output.datatype.name}; the model gives"
            f" {spec.datatype.name}"
        )


def _run(
    bound: Bound,
    outputs: list[TensorSpec],
    signature: Signature,
    settings: ModelSettings,
    session: MeasuredRuns,
) -> list[Array]:
    """The answer: of one run, or of several where there are more rows than a batch may have."""
    names = [spec.name for spec in outputs]
    most = max(signature.max_batch_size, 1)
    if bound.rows <= most:
        return session.run(_feed(bound, signature, None), names)
    if not settings.allow_slicing:
        raise InvalidTensor(
            f"it brings {bound.rows} rows, the model takes at most {most} (max_batch_size) and"
            " allow_slicing is off"
        )
    parts = [
        session.run(_feed(bound, signature, slice(start, start + most)), names)
        for start in range(0, bound.rows, most)
    ]
    return [
        np.concatenate(pieces, axis=spec.batch_axis or 0)
        for spec, pieces in zip(outputs, zip(*parts, strict=True), strict=True)
    ]


def _feed(bound: Bound, signature: Signature, rows: slice | None) -> Feeds:
    feed: Feeds = {}
    for spec, given in zip(signature.inputs, bound.inputs, strict=True):
        if given is None:
            continue
        array = given.array()
        if rows is not None and spec.batch_axis is not None:
            array = np.ascontiguousarray(array[(slice(None),) * spec.batch_axis + (rows,)])
        feed[spec.name] = array
    return feed


def _difference(output: InferOutput, given: Array, golden: GoldenRequest, coarse: bool) -> str:
    """Words for what is wrong with an output; ``""`` where nothing is."""
    if output.shape != given.shape:
        return (
            f"output '{output.name}' has the shape {list(given.shape)}; expected is"
            f" {list(output.shape)}"
        )
    relative, absolute = golden.relative, golden.absolute
    if relative is None:
        relative = tolerance_of(output.datatype, coarse).relative
    if absolute is None:
        absolute = relative * ABSOLUTE_SHARE
    found = deviation(output.array, given, output.datatype, relative, absolute)
    if found is None:
        return ""
    bounds = ""
    if isinstance(found.expected, float):
        bounds = f" (allowed is {absolute:.3g} + {relative:.3g} * |expected|)"
    return (
        f"output '{output.name}' is off in {found.count} of {given.size} elements"
        f"{_largest(found)}{bounds}, first at {list(found.index)}: expected"
        f" {_shown(found.expected)}, given {_shown(found.given)}"
    )


def _largest(found: Deviation) -> str:
    return "" if found.largest is None else f" by up to {found.largest:.4g}"


def _shown(value: Any) -> str:
    return f"{value:.7g}" if isinstance(value, float) else repr(value)
