"""Run the ``onnx`` package's backend tests through a gateway, over HTTP binary and gRPC.

Every case that the installed ONNX Runtime itself passes in process must give the same outputs
over both protocols. Exits with status 1 if one does not.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from onnx.backend.test.runner import Runner

from tests.conformance.cases import Case, node_cases, spread, topology_cases
from tests.conformance.reference import Reference, first_line, run_in_process
from tests.conformance.report import Report
from tests.conformance.wire import Grpc, HttpBinary, Wire, same_bits
from tests.server import GRPC_IMPLEMENTATIONS, GatewayProcess

Array = npt.NDArray[Any]

#: Models that one gateway serves at a time.
NODES_PER_GATEWAY = 400
TOPOLOGIES_PER_GATEWAY = 3

FAST_NODES = 120
FAST_TOPOLOGIES = ("test_squeezenet", "test_shufflenet")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--fast", action="store_true", help="a subset that shows every trait")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument(
        "--grpc-impl",
        choices=GRPC_IMPLEMENTATIONS,
        default=GRPC_IMPLEMENTATIONS[0],
        help="the gateway's implementation of gRPC",
    )
    parser.add_argument("--in-process", action="store_true", help="judge ONNX Runtime, no gateway")
    parser.add_argument("--report", type=Path, help="write the whole report here (markdown)")
    options = parser.parse_args()

    report = Report()
    for cases, references in groups(report, options):
        if options.in_process:
            report.passed += [case.name for case in cases]
        else:
            run_over_the_wire(cases, references, report, options.grpc_impl)
        print(f"... {report.summary()}", file=sys.stderr, flush=True)
    print(report.summary())
    for name, reasons in report.failed.items():
        print(f"FAILED {name}: {'; '.join(reasons)}")
    if options.report:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(report.markdown())
    return 1 if report.failed or not report.passed else 0


def groups(
    report: Report, options: argparse.Namespace
) -> Iterator[tuple[list[Case], dict[str, Reference]]]:
    """The cases to send, a gateway's worth at a time; the others are entered in the report."""
    nodes = [case for case in node_cases() if options.only in case.name]
    runnable, references = judge(nodes, report)
    if options.fast:
        runnable = spread(runnable, FAST_NODES)
    for start in range(0, len(runnable), NODES_PER_GATEWAY):
        yield runnable[start : start + NODES_PER_GATEWAY], references
    topologies = (case for case in topology_cases() if options.only in case.name)
    if options.fast:
        topologies = (case for case in topologies if case.name in FAST_TOPOLOGIES)
    runnable, references = judge(topologies, report)
    for start in range(0, len(runnable), TOPOLOGIES_PER_GATEWAY):
        yield runnable[start : start + TOPOLOGIES_PER_GATEWAY], references


def judge(cases: Iterable[Case], report: Report) -> tuple[list[Case], dict[str, Reference]]:
    """Sort out what the protocol cannot express and what the runtime itself does not pass."""
    runnable, references = [], {}
    for case in cases:
        if case.inexpressible:
            report.inexpressible[case.name] = case.inexpressible
            continue
        reference = run_in_process(case)
        if reference.failure:
            report.unsupported[case.name] = reference.failure
        else:
            runnable.append(case)
            references[case.name] = reference
    return runnable, references


def run_over_the_wire(
    cases: list[Case], references: dict[str, Reference], report: Report, grpc_impl: str
) -> None:
    """Serve the cases' models from one gateway and send each case over both protocols."""
    with tempfile.TemporaryDirectory() as directory:
        for case in cases:
            place = Path(directory, case.name, "1")
            place.mkdir(parents=True)
            onnx.save(case.model, place / "model.onnx")
        # Ready once loading has ended: what could not be loaded shows in its own case.
        lenient = {"ONNX_GATEWAY_STRICT_READINESS": "false"}
        gateway = GatewayProcess(Path(directory), grpc_impl=grpc_impl, environment=lenient).start()
        try:
            gateway.wait_ready(deadline_s=300.0)
            wires: list[Wire] = [HttpBinary(gateway.http_url), Grpc(gateway.grpc_url)]
            for case in cases:
                record(case, references[case.name], wires, report)
                gateway.assert_running()
            for wire in wires:
                wire.close()
            gateway.stop()
        finally:
            gateway.kill()


def record(case: Case, reference: Reference, wires: list[Wire], report: Report) -> None:
    problems = []
    for wire in wires:
        try:
            near = differs_in_bits(case, reference, wire.infer(case))
        except Exception as error:
            problems.append(f"{wire.name}: {first_line(error)}")
        else:
            if near:
                report.near.add(case.name)
    if problems:
        report.failed[case.name] = problems
        return
    report.passed.append(case.name)
    if reference.random:
        report.shape_only.add(case.name)


def differs_in_bits(case: Case, reference: Reference, answer: dict[str, Array]) -> bool:
    """Whether some value differs in its bits; raises where it differs by more than tolerated."""
    near = False
    for name, expected in reference.outputs.items():
        given = answer[name]
        if (given.dtype, given.shape) != (
            object if expected.dtype.kind in "OUS" else expected.dtype,
            expected.shape,
        ):
            raise AssertionError(
                f"output '{name}' is {given.dtype}{list(given.shape)}, "
                f"expected {expected.dtype}{list(expected.shape)}"
            )
        if reference.random or same_bits(given, expected):
            continue
        if given.dtype == object:
            raise AssertionError(f"output '{name}' is {given!r}, expected {expected!r}")
        Runner.assert_similar_outputs([expected], [given], case.rtol, case.atol)
        near = True
    return near


if __name__ == "__main__":
    sys.exit(main())
