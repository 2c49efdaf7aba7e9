"""How long to wait before something that failed is tried again."""

from dataclasses import dataclass
from random import Random
from typing import Any, Final

from gateway.tables import Check, number, read_table, table, wrong

#: The word for ``attempts`` that never end.
FOREVER: Final = "forever"


@dataclass(frozen=True, slots=True)
class Retry:
    """Waits that double, each made shorter by chance so that those who failed together come apart.

    Attributes:
        first_s: the longest that the first wait may be, seconds.
        most_s: the longest that any wait may be.
        attempts: tries in a row before it is given up; ``None`` for never.
    """

    first_s: float = 0.5
    most_s: float = 30.0
    attempts: int | None = None

    def delay_s(self, failures: int, chance: Random) -> float:
        """Seconds to wait after ``failures`` tries in a row, 1 or more."""
        # The exponent is bounded, or a sink that is down for days would overflow it.
        bound = min(self.first_s * 2.0 ** min(failures - 1, 60), self.most_s)
        return bound * (0.5 + chance.random() / 2)

    def is_over(self, failures: int) -> bool:
        """Whether ``failures`` tries in a row are all there may be."""
        return self.attempts is not None and failures >= self.attempts


def retry_check(default: Retry) -> Check:
    """A table of ``Retry``'s fields; what is left out is as in ``default``."""

    def check(where: str, value: Any) -> Retry:
        fields = {"first_s": number, "most_s": number, "attempts": _attempts}
        given = read_table(table(where, value), fields, f"{where}.")
        made = Retry(
            given.get("first_s", default.first_s),
            given.get("most_s", default.most_s),
            given.get("attempts", default.attempts),
        )
        if not 0 < made.first_s <= made.most_s:
            raise wrong(
                where, "waits with 0 < first_s <= most_s", {"first_s": made.first_s, **given}
            )
        return made

    return check


def _attempts(where: str, value: Any) -> int | None:
    if value == FOREVER:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise wrong(where, f'an integer of at least 1, or "{FOREVER}"', value)
    return value
