"""The batching core once more, in plain Python: slow, obvious, and written from the rules.

The property tests drive this and the Cython core side by side and compare every decision.
"""

from dataclasses import dataclass, field

LOOKAHEAD = 32


@dataclass
class Curve:
    """The latency curve: a point at each power of two, straight lines between."""

    points: list[int] = field(default_factory=lambda: [0] * 16)
    measured: set[int] = field(default_factory=set)

    def _place(self, rows: int) -> tuple[int, int]:
        rows = max(rows, 1)
        k = min(rows.bit_length() - 1, 15)
        return k, rows

    def at(self, rows: int) -> int:
        k, rows = self._place(rows)
        low, span = self.points[k], 1 << k
        if rows == span or k == 15:
            return low
        high = self.points[k + 1]
        return low + _divide((high - low) * (rows - span), span)

    def observe(self, rows: int, ns: int) -> None:
        k, rows = self._place(rows)
        span = 1 << k
        if k not in self.measured:
            self.measured.add(k)
            self.points[k] = ns
        else:
            error, upper = ns - self.at(rows), min(rows - span, span)
            self.points[k] += _divide(error * (span - upper), 8 * span)
            if k < 15:
                self.points[k + 1] += _divide(error * upper, 8 * span)
            self.points[k] = max(self.points[k], 1)
        for j in range(k + 1, 16):
            self.points[j] = max(self.points[j], self.points[j - 1])
        for j in range(k - 1, -1, -1):
            self.points[j] = min(self.points[j], self.points[j + 1])


def _divide(a: int, b: int) -> int:
    """C's division: towards zero."""
    return abs(a) // b * (1 if a >= 0 else -1)


@dataclass(frozen=True)
class Policy:
    max_rows: int
    max_delay_ns: int = 0
    objective_ns: int = 0
    preferred: tuple[int, ...] = ()


def plan(
    policy: Policy, curve: Curve, now: int, rows: int, oldest: int, deadline: int, gap: int
) -> tuple[int, int]:
    """``(rows to take, wait until)``; see the rules in ``_native/plan.pyx``."""
    if rows <= 0:
        return 0, 0
    limits = [t for t in (policy.objective_ns and oldest + policy.objective_ns, deadline) if t]
    latest = min(limits, default=None)
    limit = policy.max_rows
    if latest is not None:
        possible = min(limit, rows + 1)
        in_time = max((n for n in range(1, possible + 1) if now + curve.at(n) <= latest), default=0)
        if 0 < in_time < limit and in_time <= rows:
            limit = in_time
    if rows >= limit:
        return limit, 0
    if policy.max_delay_ns:
        fitting = [size for size in policy.preferred if size <= rows]
        if fitting:
            return max(fitting), 0
        until = oldest + policy.max_delay_ns
        if latest is not None:
            until = min(until, latest - curve.at(rows))
        return (0, until) if now < until else (rows, 0)
    if policy.objective_ns and gap:
        saved = curve.at(rows) + curve.at(1) - curve.at(rows + 1)
        if gap < saved and now + gap + curve.at(rows + 1) <= latest:
            return 0, now + gap
    return rows, 0


@dataclass(eq=False)
class Ticket:
    group: int
    rows: int
    deadline: int
    level: int
    enqueued: int = 0
    name: int = 0

    @property
    def weight(self) -> int:
        return max(self.rows, 1)


@dataclass
class Taken:
    tickets: list[Ticket]
    expired: list[Ticket]


class Queue:
    """All waiting tickets in one list, in order of arrival; everything else is derived."""

    def __init__(self, policy: Policy, max_count: int) -> None:
        self.policy = policy
        self.max_count = max_count
        self.curve = Curve()
        self.waiting: list[Ticket] = []
        self.last_put = 0
        self.gap = 0
        self.wait_until = 0

    def put(self, ticket: Ticket, now: int) -> bool:
        if len(self.waiting) >= self.max_count:
            return False
        ticket.enqueued = now
        self.waiting.append(ticket)
        if self.last_put:
            gap = (now - self.last_put) // ticket.weight
            self.gap = gap if self.gap == 0 else self.gap + _divide(gap - self.gap, 8)
        self.last_put = now
        return True

    def cancel(self, ticket: Ticket) -> bool:
        if ticket not in self.waiting:
            return False
        self.waiting.remove(ticket)
        return True

    def expire(self, now: int) -> list[Ticket]:
        late = [t for t in self.waiting if t.deadline and t.deadline <= now]
        self.waiting = [t for t in self.waiting if t not in late]
        return late

    def poll(self, now: int) -> Taken | None:
        late = self.expire(now)
        self.wait_until = 0
        due = []
        for group in {t.group for t in self.waiting}:
            members = [t for t in self.waiting if t.group == group]
            head = min(members, key=lambda t: t.level)
            deadlines = [t.deadline for t in members if t.deadline]
            rows, until = plan(
                self.policy,
                self.curve,
                now,
                sum(t.weight for t in members),
                min(t.enqueued for t in members),
                min(deadlines, default=0),
                self.gap,
            )
            if rows:
                due.append(((head.level, head.enqueued), group, rows))
            elif self.wait_until == 0 or until < self.wait_until:
                self.wait_until = until
        if not due:
            return Taken([], late) if late else None
        # Groups whose heads are equally urgent and equally old may go in any order.
        first = min(due)[0]
        self.candidates = {group for key, group, _ in due if key == first}
        self.rows_of = {group: rows for _, group, rows in due}
        return Taken([], late)

    def fill(self, group: int) -> list[Ticket]:
        """Take the batch of one of ``candidates``."""
        left, passed, taken = self.rows_of[group], 0, []
        members = [t for t in self.waiting if t.group == group]
        for ticket in sorted(members, key=lambda t: t.level):
            if left <= 0 or passed >= LOOKAHEAD:
                break
            if ticket.weight <= left or not taken:
                left -= ticket.weight
                taken.append(ticket)
            else:
                passed += 1
        self.waiting = [t for t in self.waiting if t not in taken]
        return taken
