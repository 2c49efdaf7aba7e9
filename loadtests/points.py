"""What was measured: its points, the table that they make, and what they are beside each other."""

from collections.abc import Sequence
from dataclasses import dataclass

#: gRPC's names in the table, by implementation.
GRPC_NAMES = {"native": "gRPC", "grpcio": "gRPC (grpcio)"}


@dataclass(frozen=True, slots=True)
class Point:
    """One measured load of one server.

    ``cpu_us`` is server CPU microseconds per request, ``batch`` the mean rows of a run (``None``
    for a server without batches); latencies are what the client saw.
    """

    server: str
    protocol: str
    load: str
    cpu_us: float
    rate: float
    p50_ms: float
    p99_ms: float
    batch: float | None


HEADER = (
    f"{'server':<20}{'protocol':<15}{'in flight':>13}{'CPU us':>9}{'req/s':>9}"
    f"{'p50 ms':>9}{'p99 ms':>9}{'batch':>8}"
)


def row(point: Point) -> str:
    """A line under ``HEADER``."""
    batch = "" if point.batch is None else f"{point.batch:.1f}"
    return (
        f"{point.server:<20}{point.protocol:<15}{point.load:>13}{point.cpu_us:>9.1f}"
        f"{point.rate:>9.0f}{point.p50_ms:>9.2f}{point.p99_ms:>9.2f}{batch:>8}"
    )


def find(points: Sequence[Point], server: str, protocol: str, load: str) -> Point | None:
    """The point that was measured so, if it was."""
    for point in points:
        if (point.server, point.protocol, point.load) == (server, protocol, load):
            return point
    return None


def over_bounds(points: Sequence[Point], heavy_item_us: float | None) -> list[str]:
    """How far the gateway is from what bounds it, at 64 in flight.

    ``heavy_item_us`` is ONNX Runtime's own cost of the heavy model at batch 32.
    """
    lines = []
    for protocol, bare in (("HTTP binary", "httptools echo"), ("gRPC", "grpc.aio echo")):
        for load in ("64", "1x64"):
            tiny = find(points, "gateway, tiny", protocol, load)
            floor = find(points, bare, protocol.split()[0], load)
            if tiny and floor:
                lines.append(
                    f"tiny over {protocol}, {load} in flight: {tiny.cpu_us:.1f} us, "
                    f"{tiny.cpu_us / floor.cpu_us:.2f} x the {bare}"
                )
    for protocol in ("HTTP binary", "HTTP JSON", *GRPC_NAMES.values()):
        heavy = find(points, "gateway, heavy", protocol, "64")
        if heavy and heavy_item_us:
            lines.append(
                f"heavy over {protocol}, 64 in flight: {heavy.cpu_us:.0f} us, "
                f"{heavy.cpu_us / heavy_item_us:.2f} x ONNX Runtime's own at batch 32"
            )
    return lines


def beside_grpcio(points: Sequence[Point]) -> list[str]:
    """Each gRPC point of the native front beside the grpcio front's, as a table."""
    pairs = [
        (point, other)
        for point in points
        if point.protocol == GRPC_NAMES["native"]
        and (other := find(points, point.server, GRPC_NAMES["grpcio"], point.load))
    ]
    names = f"{'native':>9}{'grpcio':>9}"
    header = f"{'gRPC: CPU us, batch':<20}{'in flight':>13}{names}{'ratio':>8}{names}"
    lines = [
        f"{native.server:<20}{native.load:>13}{native.cpu_us:>9.1f}{grpcio.cpu_us:>9.1f}"
        f"{grpcio.cpu_us / native.cpu_us:>8.1f}{native.batch:>9.1f}{grpcio.batch:>9.1f}"
        for native, grpcio in pairs
    ]
    return [header, *lines] if lines else []
