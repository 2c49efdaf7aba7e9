"""The batching decision; see ``plan.pyx``."""

from libc.stdint cimport int64_t

cdef enum:
    MAX_PREFERRED = 16
    CURVE_POINTS = 16

cdef struct Policy:
    int64_t max_rows
    int64_t max_delay_ns
    int64_t objective_ns
    int n_preferred
    int64_t preferred[MAX_PREFERRED]

cdef struct Curve:
    int64_t ns[CURVE_POINTS]
    bint measured[CURVE_POINTS]

cdef struct Waiting:
    int64_t rows
    int64_t oldest_ns
    int64_t deadline_ns
    int64_t gap_ns

cdef struct Decision:
    int64_t rows
    int64_t wait_until_ns

cdef int64_t curve_at(const Curve* curve, int64_t rows) noexcept nogil
cdef void curve_observe(Curve* curve, int64_t rows, int64_t ns) noexcept nogil
cdef Decision plan(
    const Policy* policy, const Curve* curve, const Waiting* waiting, int64_t now_ns
) noexcept nogil
cdef int fill_policy(
    Policy* policy, int64_t max_rows, int64_t max_delay_ns, int64_t objective_ns, preferred
) except -1
