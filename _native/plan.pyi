from collections.abc import Iterable

class LatencyCurve:
    def observe(self, rows: int, ns: int) -> None: ...
    def at(self, rows: int) -> int: ...

def decide(
    curve: LatencyCurve,
    *,
    now_ns: int,
    rows: int,
    oldest_ns: int,
    deadline_ns: int = 0,
    gap_ns: int = 0,
    max_rows: int,
    max_delay_ns: int = 0,
    objective_ns: int = 0,
    preferred: Iterable[int] = (),
) -> tuple[int, int]: ...
