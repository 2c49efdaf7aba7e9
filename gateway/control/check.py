"""Looks at a repository as a server would, and reports what would be served."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.control.repository import ModelSource, scan_repositories
from gateway.errors import LoadError
from gateway.serving.loaded import LoadedModel
from gateway.serving.loader import load_model
from gateway.serving.signature import TensorSpec


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about one version, or about a model without any (``version`` is "").

    Attributes:
        served: whether a server would serve it.
        reason: why it would not; ``""`` where it would.
        facts: what would be served: tensors, batching, device, times, notes; JSON values.
        warnings: parts of the model that are left aside although it is served.
    """

    model: str
    version: str
    served: bool
    reason: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The finding as one JSON object."""
        return {
            "model": self.model,
            "version": self.version,
            "served": self.served,
            "reason": self.reason,
            **self.facts,
            "warnings": list(self.warnings),
        }

    def as_text(self) -> str:
        """The finding as a few lines for people."""
        head = f"{self.model}" + (f" version {self.version}" if self.version else "")
        lines = [f"{'OK     ' if self.served else 'REFUSED'} {head}"]
        if self.reason:
            lines.append(f"    {self.reason}")
        if facts := self.facts:
            lines += [f"    {kind:<8}{line}" for kind, line in _tensor_lines(facts)]
            lines.append(f"    batch   {facts['batching']}")
            lines.append(f"    runs on {facts['device']}, {', '.join(facts['providers'])}")
            lines += [f"    note    {note}" for note in facts["notes"]]
        lines += [f"    warning {warning}" for warning in self.warnings]
        return "\n".join(lines)


def check_repositories(paths: Iterable[Path], progress: Callable[[str], None]) -> Iterator[Finding]:
    """Load, probe and measure every version that would be served, one after another; blocks.

    Args:
        progress: told what is being looked at, in a few words, as it begins.

    Raises:
        ConfigError: a repository cannot be read.
        StartupError: there is no usable ONNX Runtime.
    """
    sources = scan_repositories(paths)
    for number, source in enumerate(sources.values(), 1):
        yield from _check_model(source, f"model {number} of {len(sources)}, ", progress)


def _check_model(
    source: ModelSource, place: str, progress: Callable[[str], None]
) -> Iterator[Finding]:
    if not source.versions:
        yield Finding(source.name, "", False, "; ".join(source.problems))
    for version, path in source.versions.items():
        label = f"{place}{source.name} version {version}: "
        try:
            loaded = load_model(
                source.name,
                version,
                path,
                source.settings,
                progress=lambda phase, label=label: progress(label + phase),  # type: ignore[misc]
            )
        except LoadError as error:
            yield Finding(source.name, version, False, str(error), warnings=source.problems)
            continue
        yield Finding(source.name, version, True, facts=_facts(loaded), warnings=source.problems)


def _facts(loaded: LoadedModel) -> dict[str, Any]:
    session = loaded.sessions[0]
    limit = loaded.signature.max_batch_size
    return {
        "inputs": [_tensor(spec) for spec in loaded.signature.inputs],
        "outputs": [_tensor(spec) for spec in loaded.signature.outputs],
        "max_batch_size": limit,
        "batching": _batching(limit, loaded.latency_ns),
        "latency_us": {str(rows): ns / 1e3 for rows, ns in loaded.latency_ns.items()},
        "instances": len(loaded.sessions),
        "device": session.device,
        "providers": list(session.providers),
        "settings": str(loaded.settings.source or ""),
        "notes": list(loaded.notes),
        "digest": loaded.digest,
    }


def _batching(limit: int, latency_ns: dict[int, int]) -> str:
    times = ", ".join(f"{rows}: {ns / 1e3:.0f} us" for rows, ns in latency_ns.items())
    what = f"up to {limit} rows run together" if limit else "none, one request at a time"
    return what + (f" (rows: time of a run; {times})" if times else "")


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "datatype": spec.datatype.name,
        "shape": list(spec.shape),
        "batch_axis": spec.batch_axis,
        "optional": spec.optional,
        "labels": list(spec.labels),
    }


def _tensor_lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for kind in ("input", "output"):
        for tensor in facts[f"{kind}s"]:
            axis = tensor["batch_axis"]
            details = "" if axis is None else f", rows on axis {axis}"
            details += ", optional" if tensor["optional"] else ""
            details += f", {len(tensor['labels'])} labels" if tensor["labels"] else ""
            yield kind, f"{tensor['name']} {tensor['datatype']} {tensor['shape']}{details}"
