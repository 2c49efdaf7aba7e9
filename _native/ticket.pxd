"""Requests inside the core, and the groups of like shape that they wait in."""

from cpython.buffer cimport Py_buffer
from libc.stdint cimport int64_t

from gateway._native.arena cimport Arena

cdef enum TicketState:
    NEW = 0
    QUEUED = 1
    TAKEN = 2
    CANCELLED = 3
    RETURNED = 4

cdef struct ticket_t:
    ticket_t* prev
    ticket_t* next
    group_t* group
    void* owner
    const char** sources
    int64_t rows
    int64_t weight
    int64_t enqueued_ns
    int64_t deadline_ns
    int level
    TicketState state
    # Whether nobody else can write to what the sources point to.
    bint constant

cdef struct chain_t:
    ticket_t* head
    ticket_t* tail

cdef struct group_t:
    group_t* prev
    group_t* next
    chain_t* levels
    int64_t* outer
    int64_t* inner
    char* kind
    int64_t weight
    int64_t count
    int64_t deadline_ns
    int n_levels
    int n_inputs
    bint listed
    void* owner


cdef class Group:
    cdef group_t c
    cdef readonly object shapes


cdef class Ticket:
    cdef ticket_t c
    cdef Py_buffer* pins
    cdef int n_pins
    # Where ``c.sources`` points while there are few inputs.
    cdef const char* few_sources[4]
    cdef readonly Group group
    cdef readonly object inputs
    cdef public object sink

    cdef int prepare(self, Group group, int64_t rows, int64_t deadline_ns, int level) except -1
    cpdef void release(self)


cdef void chain_append(chain_t* chain, ticket_t* ticket) noexcept nogil
cdef void chain_remove(chain_t* chain, ticket_t* ticket) noexcept nogil
cdef bint lies_ready(const chain_t* chain, int64_t least_bytes) noexcept nogil
cdef bint gather(const chain_t* chain, int64_t rows, Arena arena) noexcept nogil
