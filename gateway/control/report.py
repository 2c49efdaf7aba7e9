"""What would be served and why: the explanation behind ``onnx-gateway check``."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.control.repository import ModelSource, scan_repositories
from gateway.control.validation import check_budgets
from gateway.errors import LoadError
from gateway.serving.lifecycle import State
from gateway.serving.loaded import LoadedModel
from gateway.serving.loader import load_model
from gateway.serving.signature import TensorSpec


@dataclass(frozen=True, slots=True)
class VersionReport:
    """One version that the policy loads: what came of loading it, or why it failed.

    Attributes:
        loaded: its description; the sessions are gone. ``None`` where it failed.
        problem: why it cannot be served, ``""`` where it can.
        seconds: how long loading took.
    """

    version: str
    path: Path
    loaded: dict[str, Any] | None
    problem: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One model of the repositories: where it comes from, and its versions."""

    source: ModelSource
    versions: tuple[VersionReport, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything of this model that cannot be served, a sentence each."""
        return (*self.source.problems, *(v.problem for v in self.versions if v.problem))

    def as_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        settings = self.source.settings
        return {
            "name": self.source.name,
            "path": str(self.source.path),
            "settings": str(settings.source) if settings.source else None,
            "ignored_settings": list(settings.ignored),
            "found_versions": list(self.source.found),
            "versions": [
                {
                    "version": report.version,
                    "path": str(report.path),
                    "load_seconds": round(report.seconds, 3),
                    "problem": report.problem or None,
                    **(report.loaded or {}),
                }
                for report in self.versions
            ],
            "problems": list(self.problems),
        }

    def text(self) -> str:
        """The report for people, several lines."""
        settings = self.source.settings
        lines = [f"{self.source.name}: {'cannot be served whole' if self.problems else 'ok'}"]
        if settings.source:
            lines.append(f"  settings from {settings.source}")
        if settings.ignored:
            lines.append(f"  not honoured: {', '.join(settings.ignored)}")
        left = [v for v in self.source.found if v not in self.source.versions]
        if left:
            lines.append(f"  not loaded, by the version policy: {', '.join(left)}")
        lines += [f"  problem: {problem}" for problem in self.source.problems]
        for report in self.versions:
            lines += _version_lines(report)
        return "\n".join(lines)


def check(
    repositories: Sequence[Path], tell: Callable[[str], None] | None = None
) -> Iterator[ModelReport]:
    """Load every model as ``serve`` would, one at a time, and report on each as it is done.

    Blocks while a model is loaded; its sessions are released before the next.

    Args:
        tell: told each stage, ``"<model> <version>: <stage>"``, as it begins.

    Raises:
        ConfigError: a repository is not a directory that can be read.
        StartupError: there is no usable ONNX Runtime.
    """
    for source in scan_repositories(repositories).values():
        versions = [
            _check_version(source, version, path, tell) for version, path in source.versions.items()
        ]
        yield ModelReport(source, tuple(versions))


def _check_version(
    source: ModelSource, version: str, path: Path, tell: Callable[[str], None] | None
) -> VersionReport:
    def progress(state: State, stage: str) -> None:
        if tell is not None:
            tell(f"{source.name} {version}: {stage}")

    start = time.monotonic()
    try:
        loaded = load_model(source.name, version, path, source.settings, progress=progress)
        check_budgets(loaded, None)
    except LoadError as error:
        return VersionReport(version, path, None, str(error), time.monotonic() - start)
    return VersionReport(version, path, describe(loaded), "", time.monotonic() - start)


def describe(loaded: LoadedModel) -> dict[str, Any]:
    """A loaded version as plain JSON values."""
    signature = loaded.signature
    return {
        "digest": loaded.digest,
        "inputs": [_tensor(spec) for spec in signature.inputs],
        "outputs": [_tensor(spec) for spec in signature.outputs],
        "max_batch_size": signature.max_batch_size,
        "latency_us": {str(rows): ns / 1000 for rows, ns in loaded.latency_ns.items()},
        "device": loaded.sessions[0].device,
        "providers": list(loaded.sessions[0].providers),
        "instances": len(loaded.sessions),
        "memory_bytes": loaded.memory_bytes,
        "golden_requests": loaded.golden_requests,
        "notes": list(loaded.notes),
        "metadata": dict(loaded.metadata),
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "datatype": spec.datatype.name,
        "shape": list(spec.shape),
        "batch_axis": spec.batch_axis,
        "optional": spec.optional,
        "labels": list(spec.labels),
    }


def _version_lines(report: VersionReport) -> list[str]:
    lines = [f"  version {report.version}: {report.path}, {report.seconds:.1f} s"]
    if report.loaded is None:
        return [*lines, f"    problem: {report.problem}"]
    facts = report.loaded
    batched = facts["max_batch_size"]
    width = max((len(t["name"]) for t in facts["inputs"] + facts["outputs"]), default=0)
    for kind in ("inputs", "outputs"):
        lines += [
            f"    {kind[:-1]:<6} {tensor['name']:<{width}}  {_tensor_words(tensor, batched)}"
            for tensor in facts[kind]
        ]
    lines.append(
        f"    batching: up to {batched} rows together" if batched else "    batching: none"
    )
    lines += [f"    note: {note}" for note in facts["notes"]]
    times = ", ".join(f"{rows}: {us / 1000:.3g}" for rows, us in facts["latency_us"].items())
    lines.append(f"    milliseconds by rows: {times or 'not measured'}")
    lines.append(f"    runs on {', '.join(facts['providers'])}, instances: {facts['instances']}")
    lines.append(f"    memory taken by opening it: {facts['memory_bytes'] / 1e6:.1f} MB")
    lines.append(f"    golden requests: {_golden_words(facts['golden_requests'])}")
    return lines


def _golden_words(replayed: int) -> str:
    return f"{replayed}, all answered as expected" if replayed else "none replayed"


def _tensor_words(tensor: dict[str, Any], batched: int) -> str:
    words = f"{tensor['datatype']} {tensor['shape']}"
    if tensor["optional"]:
        words += ", optional"
    if tensor["batch_axis"] is not None:
        words += f", rows on axis {tensor['batch_axis']}"
    elif batched:
        words += ", shared by the batch"
    if tensor["labels"]:
        words += f", {len(tensor['labels'])} labels"
    return words
