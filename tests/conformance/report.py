"""What came of all cases: the counts, and by name whatever did not pass."""

from dataclasses import dataclass, field


@dataclass
class Report:
    """Names of cases by outcome, each with its reason where there is one.

    A case is in exactly one of ``passed``, ``inexpressible``, ``unsupported`` and ``failed``.
    ``near`` is the part of ``passed`` whose values are within the test's tolerances of ONNX
    Runtime in process but not bit for bit the same; ``shape_only`` the part that draws random
    numbers, so that only dtypes and shapes could be compared.
    """

    passed: list[str] = field(default_factory=list)
    inexpressible: dict[str, str] = field(default_factory=dict)
    unsupported: dict[str, str] = field(default_factory=dict)
    failed: dict[str, list[str]] = field(default_factory=dict)
    near: set[str] = field(default_factory=set)
    shape_only: set[str] = field(default_factory=set)

    def summary(self) -> str:
        return (
            f"{len(self.passed)} passed ({len(self.near)} of them not bit for bit, "
            f"{len(self.shape_only)} random and compared by shape), "
            f"{len(self.inexpressible)} the protocol cannot express, "
            f"{len(self.unsupported)} not supported by the installed ONNX Runtime, "
            f"{len(self.failed)} FAILED"
        )

    def markdown(self) -> str:
        """The whole report, for a file."""
        sections = ["# Conformance over the wire", self.summary()]
        sections.append(section("Failed", {k: "; ".join(v) for k, v in self.failed.items()}))
        sections.append(section("What the protocol cannot express", self.inexpressible))
        sections.append(section("What the installed ONNX Runtime does not pass", self.unsupported))
        sections.append(section("Not bit for bit", dict.fromkeys(sorted(self.near), "")))
        sections.append(section("Compared by shape", dict.fromkeys(sorted(self.shape_only), "")))
        return "\n\n".join(part for part in sections if part) + "\n"


def section(title: str, reasons: dict[str, str]) -> str:
    if not reasons:
        return ""
    lines = [f"- `{name}`" + (f": {reason}" if reason else "") for name, reason in reasons.items()]
    return f"## {title} ({len(reasons)})\n\n" + "\n".join(lines)
