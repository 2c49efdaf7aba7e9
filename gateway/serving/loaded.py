"""What the loader hands over: a model version ready to be given a lane."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.serving.onnx.session import OnnxSession
from gateway.serving.settings import ModelSettings
from gateway.serving.signature import Signature


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A loaded, probed and warmed model version.

    Attributes:
        sessions: one for each instance; all of the same model.
        latency_ns: measured wall time of one run by batch size, ascending sizes; for a model
            without batching the one entry ``{1: ns}``; empty where no sample could be run.
        notes: sentences for people: why it is served unbatched, which settings were not honoured.
        digest: ``"sha256:<hex>"`` over the model file and its external data.
        memory_bytes: resident memory of the process that opening the sessions added; 0 where it is
            not known. Whatever else the process did meanwhile is in it, memory that was free
            already and memory of a GPU are not.
        golden_requests: how many were replayed; all gave what they must.
        metadata: the ONNX file's own metadata (producer, custom key/values).
        lineage: where the version comes from, as JSON values; see ``lineage.py``.
    """

    name: str
    version: str
    path: Path
    settings: ModelSettings
    signature: Signature
    sessions: tuple[OnnxSession, ...]
    latency_ns: dict[int, int]
    notes: tuple[str, ...] = ()
    digest: str = ""
    memory_bytes: int = 0
    golden_requests: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)
