"""When to run a batch, and how large: a pure function of a snapshot.

``plan`` is asked by a free runner about one group of waiting requests (all of one shape). It
answers *take n rows now* or *ask again at t, or when another request comes*. It keeps no state,
reads no clock and takes no lock, so the queue, a simulator and the tests' oracle share it.

The rules, in order:

1. A free runner with work takes it: no waiting at low load.
2. Never more than ``max_rows``; and no more than lets the oldest request meet the latency
   objective, or the most urgent one its deadline, as long as some batch size can. Once none can,
   the batch is as large as allowed: when late, throughput is what brings latency down.
3. ``preferred`` sizes and ``max_delay_ns`` are Triton's: a preferred size leaves at once, anything
   less waits until the oldest request has waited ``max_delay_ns``.
4. With an objective, and without a fixed delay, a batch waits for one more row only while the
   expected time to the next arrival is shorter than the compute time that the row saves by
   riding along, ``L(n) + L(1) - L(n + 1)``, and the slack covers it.

``L(n)`` is the latency curve: learned online, a point at each power of two, straight lines
between.
"""

cdef int64_t NEVER = 0x7FFFFFFFFFFFFFFF


cdef int64_t curve_at(const Curve* curve, int64_t rows) noexcept nogil:
    """Estimated nanoseconds of a run of ``rows`` rows; 0 where nothing is known."""
    cdef int k = 0
    cdef int64_t low, high, span
    if rows < 1:
        rows = 1
    while (<int64_t>1 << (k + 1)) <= rows and k + 1 < CURVE_POINTS:
        k += 1
    low = curve.ns[k]
    span = <int64_t>1 << k
    if rows == span or k + 1 >= CURVE_POINTS:
        return low
    high = curve.ns[k + 1]
    return low + (high - low) * (rows - span) // span


cdef void curve_observe(Curve* curve, int64_t rows, int64_t ns) noexcept nogil:
    """Learn from one measured run.

    The first measurement of a point is taken as it is. Later ones move the two points around
    them, each by its share of the error, an eighth of it: so a curve follows a machine that slows
    down, yet shrugs off one hiccup. The other points give way where the curve would fall.
    """
    cdef int k = 0, j
    cdef int64_t error, span, upper
    if rows < 1:
        rows = 1
    while (<int64_t>1 << (k + 1)) <= rows and k + 1 < CURVE_POINTS:
        k += 1
    if not curve.measured[k]:
        curve.measured[k] = True
        curve.ns[k] = ns
    else:
        error = ns - curve_at(curve, rows)
        span = <int64_t>1 << k
        upper = rows - span
        if upper > span:
            upper = span
        curve.ns[k] += error * (span - upper) // (8 * span)
        if k + 1 < CURVE_POINTS:
            curve.ns[k + 1] += error * upper // (8 * span)
        if curve.ns[k] < 1:
            curve.ns[k] = 1
    for j in range(k + 1, CURVE_POINTS):
        if curve.ns[j] < curve.ns[j - 1]:
            curve.ns[j] = curve.ns[j - 1]
    for j in range(k - 1, -1, -1):
        if curve.ns[j] > curve.ns[j + 1]:
            curve.ns[j] = curve.ns[j + 1]


cdef int64_t largest_in_time(
    const Curve* curve, int64_t limit, int64_t now_ns, int64_t latest_ns
) noexcept nogil:
    """The most rows, up to ``limit``, whose run would end by ``latest_ns``; 0 where none would."""
    cdef int64_t low = 0, high = limit, middle
    while low < high:
        middle = (low + high + 1) // 2
        if now_ns + curve_at(curve, middle) <= latest_ns:
            low = middle
        else:
            high = middle - 1
    return low


cdef Decision plan(
    const Policy* policy, const Curve* curve, const Waiting* waiting, int64_t now_ns
) noexcept nogil:
    cdef Decision decision
    cdef int64_t latest = NEVER, limit = policy.max_rows, rows = waiting.rows
    cdef int64_t in_time, until, saved
    cdef int i
    decision.rows = 0
    decision.wait_until_ns = 0
    if rows <= 0:
        return decision

    if policy.objective_ns:
        latest = waiting.oldest_ns + policy.objective_ns
    if waiting.deadline_ns and waiting.deadline_ns < latest:
        latest = waiting.deadline_ns
    if latest != NEVER:
        in_time = largest_in_time(curve, min(limit, rows + 1), now_ns, latest)
        if 0 < in_time < limit and in_time <= rows:
            limit = in_time

    if rows >= limit:
        decision.rows = limit
        return decision

    if policy.max_delay_ns:
        for i in range(policy.n_preferred - 1, -1, -1):
            if policy.preferred[i] <= rows:
                decision.rows = policy.preferred[i]
                return decision
        until = waiting.oldest_ns + policy.max_delay_ns
        if latest != NEVER:
            until = min(until, latest - curve_at(curve, rows))
        if now_ns < until:
            decision.wait_until_ns = until
            return decision
    elif policy.objective_ns and waiting.gap_ns:
        saved = curve_at(curve, rows) + curve_at(curve, 1) - curve_at(curve, rows + 1)
        until = now_ns + waiting.gap_ns
        if waiting.gap_ns < saved and until + curve_at(curve, rows + 1) <= latest:
            decision.wait_until_ns = until
            return decision

    decision.rows = rows
    return decision


cdef class LatencyCurve:
    """The latency curve by itself, for simulators and tests. Not thread-safe."""

    cdef Curve curve

    def observe(self, int64_t rows, int64_t ns):
        """Learn that a run of ``rows`` rows took ``ns`` nanoseconds."""
        curve_observe(&self.curve, rows, ns)

    def at(self, int64_t rows):
        """Estimated nanoseconds of a run of ``rows`` rows; 0 where nothing is known."""
        return curve_at(&self.curve, rows)


cdef int fill_policy(
    Policy* policy, int64_t max_rows, int64_t max_delay_ns, int64_t objective_ns, preferred
) except -1:
    """Fill ``policy``; ``ValueError`` names the setting that makes no sense."""
    sizes = sorted(set(preferred))
    if max_rows < 1:
        raise ValueError(f"max_rows must be at least 1, not {max_rows}")
    if max_delay_ns < 0 or objective_ns < 0:
        raise ValueError("max_delay_ns and objective_ns must not be negative")
    if len(sizes) > MAX_PREFERRED:
        raise ValueError(f"at most {MAX_PREFERRED} preferred sizes, not {len(sizes)}")
    if sizes and not 1 <= min(sizes) <= max(sizes) <= max_rows:
        raise ValueError(f"preferred sizes must lie in 1..{max_rows}, not {sizes}")
    policy.max_rows = max_rows
    policy.max_delay_ns = max_delay_ns
    policy.objective_ns = objective_ns
    policy.n_preferred = <int>len(sizes)
    for i, size in enumerate(sizes):
        policy.preferred[<int>i] = size
    return 0


def decide(
    LatencyCurve curve not None,
    *,
    int64_t now_ns,
    int64_t rows,
    int64_t oldest_ns,
    int64_t deadline_ns=0,
    int64_t gap_ns=0,
    int64_t max_rows,
    int64_t max_delay_ns=0,
    int64_t objective_ns=0,
    preferred=(),
):
    """``plan`` for Python callers: ``(rows to take, wait until)``, one of which is 0.

    Args:
        curve: what is known about the cost of a run.
        now_ns: the time of asking; every time here is monotonic nanoseconds.
        rows: rows waiting in the group.
        oldest_ns: arrival of the oldest of them.
        deadline_ns: the earliest deadline among them, 0 for none.
        gap_ns: expected time between arrivals, 0 for unknown.
        max_rows, max_delay_ns, objective_ns, preferred: the policy; 0 or empty turns one off.

    Raises:
        ValueError: a setting that makes no sense.
    """
    cdef Policy policy
    cdef Waiting waiting
    cdef Decision decision
    fill_policy(&policy, max_rows, max_delay_ns, objective_ns, preferred)
    waiting.rows = rows
    waiting.oldest_ns = oldest_ns
    waiting.deadline_ns = deadline_ns
    waiting.gap_ns = gap_ns
    decision = plan(&policy, &curve.curve, &waiting, now_ns)
    return decision.rows, decision.wait_until_ns
