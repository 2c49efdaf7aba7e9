"""From a model file to a ``LoadedModel``: read, open, probe, warm up, replay golden requests."""

import hashlib
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from gateway.errors import LoadError
from gateway.serving.background import Background
from gateway.serving.golden import golden_files
from gateway.serving.lifecycle import State
from gateway.serving.lineage import read_lineage
from gateway.serving.loaded import LoadedModel
from gateway.serving.measured import MeasuredRuns
from gateway.serving.memory import resident_bytes
from gateway.serving.onnx.graph import Graph, read_graph
from gateway.serving.onnx.runtime import runtime
from gateway.serving.onnx.session import OnnxSession, open_session
from gateway.serving.probe import ProbeResult, probe
from gateway.serving.replay import replay_golden
from gateway.serving.samples import Feeds
from gateway.serving.settings import ModelSettings, TensorSettings
from gateway.serving.signature import TensorSpec
from gateway.types import Array

log = logging.getLogger(__name__)

#: Longest run on made-up inputs, in seconds: one of them may send a loop in the graph far out.
TRIAL_LIMIT_S: Final = 10.0
#: From this size on, of a model with its external data, reading and opening it is worth a thread
#: that stands back.
LARGE_BYTES: Final = 1 << 20

#: Told what begins: the state that the version is in from now on, and the stage in a few words.
Progress = Callable[[State, str], None]


def load_model(
    name: str,
    version: str,
    path: Path,
    settings: ModelSettings,
    *,
    progress: Progress | None = None,
    stand_back: bool = False,
) -> LoadedModel:
    """Load one model version, prove how it may be batched, and that it answers as it must.

    Blocks, for seconds or minutes.

    Called on a loader thread; ONNX Runtime and the hashing release the GIL.

    Args:
        path: the ``.onnx`` file.
        progress: told each stage as it begins, and the state (LOADING, VALIDATING or WARMING) that
            it belongs to; on the calling thread.
        stand_back: whether what takes long is left to a thread that gets what time others leave
            over, so that requests do not notice the load. It ends later then.

    Raises:
        LoadError: the version cannot be served; the message says which part of it and why.
        StartupError: there is no usable ONNX Runtime.
    """
    tell = progress or _silent
    try:
        with ExitStack() as stack:
            background = stack.enter_context(Background()) if stand_back else None
            return _load(name, version, path, settings, tell, background)
    except Exception as error:
        _let_go(error)
        if not isinstance(error, LoadError):
            raise
        raise LoadError(f"model {name!r} version {version!r}: {error}") from error


def _let_go(error: BaseException) -> None:
    """Clear the frames that failed: they hold the sessions, and the error outlives the load."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__


def _load(
    name: str,
    version: str,
    path: Path,
    settings: ModelSettings,
    tell: Progress,
    background: Background | None,
) -> LoadedModel:
    golden = golden_files(path, settings)
    tell(State.LOADING, "reading the graph")
    shapes = {n: t.shape for n, t in settings.inputs.items() if t.shape is not None}
    graph = read_graph(path, shapes)
    inputs = described("input", graph.inputs, settings.inputs)
    outputs = described("output", graph.outputs, settings.outputs, graph.unshaped)
    aside = background if graph.size_bytes >= LARGE_BYTES else None

    def digest_here() -> str:
        return digest_of(path, graph.external)

    digest = aside.run(digest_here) if aside is not None else digest_here()
    lineage = read_lineage(path, graph.metadata)
    # The library itself is no part of the model that happens to be the first.
    runtime()
    before = resident_bytes()
    sessions = _open(graph, settings, tell, aside)
    memory = max(0, resident_bytes() - before)
    samples = sample_file(path, settings)
    runs = [MeasuredRuns(session, background) for session in sessions]
    tell(State.VALIDATING, "probing how it may be batched")
    result = probe(
        inputs,
        outputs,
        runs[0].run,
        settings,
        trial=lambda feeds, names: runs[0].run(feeds, names, TRIAL_LIMIT_S),
        arrays=None if samples is None else read_samples(samples),
        unshaped=graph.unshaped,
        coarse=runs[0].device != "cpu",
        clock=lambda: runs[0].spent_ns,
    )
    tell(State.WARMING, "warming up")
    # The probe has warmed the first session.
    warm_up(runs[1:], result, [spec.name for spec in outputs])
    if golden:
        tell(State.VALIDATING, f"replaying {len(golden)} golden requests")
        replay_golden(golden, result.signature, settings, runs)
    notes = [*result.notes, *_ignored(settings)]
    for note in result.notes:
        log.warning("model %s version %s: %s", name, version, note)
    return LoadedModel(
        name=name,
        version=version,
        path=path,
        settings=settings,
        signature=result.signature,
        sessions=sessions,
        latency_ns=result.latency_ns,
        notes=tuple(notes),
        digest=digest,
        memory_bytes=memory,
        golden_requests=len(golden),
        metadata=graph.metadata,
        lineage=lineage,
    )


def described(
    kind: str,
    specs: Sequence[TensorSpec],
    settings: Mapping[str, TensorSettings],
    unshaped: frozenset[str] = frozenset(),
) -> tuple[TensorSpec, ...]:
    """The graph's tensors with the settings' labels, checked against what the settings claim.

    Args:
        kind: ``"input"`` or ``"output"``, for messages.
        unshaped: tensors whose shape in ``specs`` is a placeholder.

    Raises:
        LoadError: the settings name a tensor that the graph lacks, or another type or shape.
    """
    names = [spec.name for spec in specs]
    for name in settings:
        if name not in names:
            raise LoadError(
                f"the settings describe {kind} {name!r}, which the graph does not have; it has"
                f" {', '.join(names)}"
            )
    checked: list[TensorSpec] = []
    for spec in specs:
        claim = settings.get(spec.name, TensorSettings())
        if claim.datatype and claim.datatype != spec.datatype.name:
            raise LoadError(
                f"the settings say that {kind} {spec.name!r} is {claim.datatype}; in the graph it"
                f" is {spec.datatype.name}"
            )
        if claim.shape is not None and spec.name not in unshaped:
            _check_shape(kind, spec, claim.shape)
        checked.append(replace(spec, labels=claim.labels) if claim.labels else spec)
    return tuple(checked)


def _check_shape(kind: str, spec: TensorSpec, shape: tuple[int, ...]) -> None:
    agrees = len(shape) == len(spec.shape) and all(
        claimed == size or -1 in (claimed, size)
        for claimed, size in zip(shape, spec.shape, strict=True)
    )
    if not agrees:
        raise LoadError(
            f"the settings say that {kind} {spec.name!r} has the shape {list(shape)}; in the graph"
            f" it is {list(spec.shape)}"
        )


def digest_of(path: Path, external: Sequence[Path]) -> str:
    """``"sha256:<hex>"`` over the file and then each external file, in the order given."""
    total = hashlib.sha256()
    for part in (path, *external):
        try:
            with part.open("rb") as file:
                while block := file.read(1 << 20):
                    total.update(block)
        except OSError as error:
            raise LoadError(f"{part} cannot be read: {error.strerror}") from error
    return f"sha256:{total.hexdigest()}"


def sample_file(path: Path, settings: ModelSettings) -> Path | None:
    """The file of sample rows for the version at ``path``; one of its own goes first."""
    if settings.warmup is None:
        return None
    own = path.parent / settings.warmup.name
    return own if own.is_file() else settings.warmup


def read_samples(path: Path) -> Feeds:
    """The arrays of a ``.npz`` file by name, text as objects.

    Raises:
        LoadError: the file is missing or is not an ``.npz`` of plain arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: _plain(archive[name]) for name in archive.files}
    except Exception as error:
        raise LoadError(
            f"the warm-up file {path} cannot be read as a .npz of plain arrays: {error}"
        ) from error


def _plain(array: Array) -> Array:
    return array.astype(object) if array.dtype.kind in "US" else array


def warm_up(sessions: Sequence[MeasuredRuns], result: ProbeResult, outputs: list[str]) -> None:
    """Run each session once at every measured batch size, so that no request pays for the first."""
    if not result.rows:
        return
    for session in sessions:
        for size in result.latency_ns:
            session.run(result.feed(size), outputs)


def _open(
    graph: Graph, settings: ModelSettings, tell: Progress, background: Background | None
) -> tuple[OnnxSession, ...]:
    sessions: list[OnnxSession] = []
    for instance in range(settings.instances):
        tell(State.LOADING, f"opening session {instance + 1} of {settings.instances}")
        sessions.append(
            open_session(
                graph.model,
                settings,
                size_bytes=graph.size_bytes,
                instance=instance,
                folder=graph.path.parent if isinstance(graph.model, bytes) else None,
                background=background,
            )
        )
    return tuple(sessions)


def _ignored(settings: ModelSettings) -> list[str]:
    if not settings.ignored:
        return []
    source = settings.source.name if settings.source else "the settings"
    return [f"not honoured in {source}: {', '.join(settings.ignored)}"]


def _silent(state: State, stage: str) -> None:
    """Progress that nobody asked for."""
