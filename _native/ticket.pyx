"""Requests inside the core, and the groups of like shape that they wait in.

Ownership: a *refused* ticket stays the caller's; an *accepted* one is the core's until its batch
(or its expiry) hands it back. The ticket pins its input buffers from its making until
``release``, so the bytes that a runner copies without the GIL cannot go away.
"""

import cython

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport calloc, free

from gateway._native.arena cimport ALIGNMENT, Arena
from gateway._native.copying cimport copy_bytes

cdef enum Kind:
    # rows of every request side by side
    BATCHED = 0
    # one copy for the whole batch: all its requests agree on the value
    SHARED = 1
    # Python objects (strings), or an optional input left out: not the core's to copy
    OPAQUE = 2

# Tickets with no more inputs than this need no table of their own.
cdef enum:
    FEW_INPUTS = 4

cdef int64_t live = 0


def live_tickets():
    """Tickets in existence; 0 once every request of the process has been answered."""
    return live


cdef class Group:
    """The layout that all tickets of one batch share.

    Args:
        layout: for each input ``(outer, inner, kind)``. ``outer`` is the product of the
            dimensions before the batch axis, ``inner`` the bytes of one row in one of those
            chunks (so a tensor of r rows has ``outer * r * inner`` bytes; for the usual batch
            axis 0 ``outer`` is 1). ``kind`` is ``"batched"``, ``"shared"`` (one value for the
            whole batch, ``outer * inner`` bytes) or ``"opaque"`` (strings and absent inputs).
        levels: number of priority levels, the first the most urgent.
        shapes: anything the caller wants to find again on a batch.

    A group serves one queue, and must outlive the tickets that name it (each holds a reference).
    """

    def __cinit__(self, layout, int levels=1, shapes=None):
        cdef int i, n = <int>len(layout)
        self.shapes = shapes
        self.c.owner = <void*>self
        self.c.n_inputs = n
        self.c.n_levels = max(levels, 1)
        self.c.levels = <chain_t*>calloc(self.c.n_levels, sizeof(chain_t))
        self.c.outer = <int64_t*>calloc(max(n, 1), sizeof(int64_t))
        self.c.inner = <int64_t*>calloc(max(n, 1), sizeof(int64_t))
        self.c.kind = <char*>calloc(max(n, 1), 1)
        if (
            self.c.levels == NULL
            or self.c.outer == NULL
            or self.c.inner == NULL
            or self.c.kind == NULL
        ):
            raise MemoryError("no memory for a group")
        kinds = {"batched": BATCHED, "shared": SHARED, "opaque": OPAQUE}
        for i, (outer, inner, kind) in enumerate(layout):
            if kind not in kinds:
                raise ValueError(f"kind must be one of {sorted(kinds)}, not {kind!r}")
            if outer < 0 or inner < 0:
                raise ValueError("outer and inner must not be negative")
            self.c.outer[i] = outer
            self.c.inner[i] = inner
            self.c.kind[i] = kinds[kind]

    def __dealloc__(self):
        free(self.c.levels)
        free(self.c.outer)
        free(self.c.inner)
        free(self.c.kind)

    def like(self, Group other not None):
        """Whether a ticket of this group has the inputs that ``other`` wants, byte for byte."""
        cdef int i
        if self.c.n_inputs != other.c.n_inputs:
            return False
        for i in range(self.c.n_inputs):
            if (
                self.c.outer[i] != other.c.outer[i]
                or self.c.inner[i] != other.c.inner[i]
                or self.c.kind[i] != other.c.kind[i]
            ):
                return False
        return True

    @property
    def waiting(self):
        """Tickets of this group that wait in the queue."""
        return self.c.count


@cython.freelist(256)
cdef class Ticket:
    """One request, from acceptance to answer.

    Args:
        group: the layout of its inputs.
        rows: rows that it brings; 0 is an empty batch, and takes the place of one row.
        inputs: one entry for each input of the group: a C-contiguous buffer of exactly the
            group's size for ``rows`` rows, or anything at all where the kind is ``opaque``.
        sink: the caller's own object, handed back with the ticket.
        deadline_ns: monotonic nanoseconds after which the ticket expires; 0 for never.
        level: priority level, 0 the most urgent.

    Raises:
        ValueError: a wrong number of inputs, a wrong size, a level out of range.
        TypeError, BufferError: an input that is not a contiguous buffer.
    """

    def __cinit__(self):
        global live
        live += 1

    def __init__(
        self, Group group not None, int64_t rows, inputs, sink, int64_t deadline_ns=0, int level=0
    ):
        cdef int i, n = group.c.n_inputs
        cdef int64_t expected
        if len(inputs) != n:
            raise ValueError(f"the group has {n} inputs, {len(inputs)} were given")
        if not 0 <= level < group.c.n_levels:
            raise ValueError(f"level must be in 0..{group.c.n_levels - 1}, not {level}")
        if rows < 0:
            raise ValueError(f"rows must not be negative, not {rows}")
        if self.group is not None:
            raise ValueError("a ticket is made once")
        self.prepare(group, rows, deadline_ns, level)
        self.inputs = inputs
        self.sink = sink
        self.pins = <Py_buffer*>calloc(max(n, 1), sizeof(Py_buffer))
        if self.pins == NULL:
            raise MemoryError("no memory for a ticket")
        for i in range(n):
            # An opaque input keeps a zeroed pin, which is released as a no-op.
            self.n_pins = i + 1
            if group.c.kind[i] == OPAQUE:
                continue
            PyObject_GetBuffer(inputs[i], &self.pins[i], PyBUF_SIMPLE)
            expected = group.c.outer[i] * group.c.inner[i]
            if group.c.kind[i] == BATCHED:
                expected *= rows
            if self.pins[i].len != expected:
                raise ValueError(
                    f"input {i} has {self.pins[i].len} bytes, {expected} were expected"
                )
            self.c.sources[i] = <const char*>self.pins[i].buf

    cdef int prepare(self, Group group, int64_t rows, int64_t deadline_ns, int level) except -1:
        """Set everything but the inputs, once.

        A caller in the core that has proven them sets ``c.sources`` itself, ``inputs`` to what
        keeps their memory alive, and ``c.constant`` if that is constant.
        """
        self.group = group
        self.c.owner = <void*>self
        self.c.group = &group.c
        self.c.rows = rows
        self.c.weight = rows if rows > 0 else 1
        self.c.deadline_ns = deadline_ns
        self.c.level = level
        self.c.sources = self.few_sources
        if group.c.n_inputs > FEW_INPUTS:
            self.c.sources = <const char**>calloc(group.c.n_inputs, sizeof(char*))
            if self.c.sources == NULL:
                raise MemoryError("no memory for a ticket")
        return 0

    def twin(self, Group group not None, sink):
        """Another ticket over the same inputs and rows, for another queue; without a deadline.

        Only of a ticket that the core made of a message (its inputs are parts of one ``bytes``),
        while it has them.

        Raises:
            ValueError: ``group`` wants other inputs, or the inputs are not parts of a message.
        """
        cdef Ticket twin
        cdef int i
        if not self.group.like(group):
            raise ValueError("a twin's group has the same inputs")
        if not isinstance(self.inputs, bytes):
            raise ValueError("only a ticket made of a message has a twin")
        twin = Ticket.__new__(Ticket)
        twin.prepare(group, self.c.rows, 0, 0)
        for i in range(group.c.n_inputs):
            twin.c.sources[i] = self.c.sources[i]
        twin.inputs = self.inputs
        twin.c.constant = self.c.constant
        twin.sink = sink
        return twin

    def buffers(self):
        """The inputs' bytes, as views of the message that the ticket was made of, ``None`` for an
        input that was left out. Raises as ``twin`` does."""
        cdef int i
        cdef int64_t size
        cdef Py_ssize_t start
        cdef list views = []
        if not isinstance(self.inputs, bytes):
            raise ValueError("only a ticket made of a message has its inputs in it")
        whole = memoryview(self.inputs)
        for i in range(self.group.c.n_inputs):
            if self.group.c.kind[i] == OPAQUE:
                views.append(None)
                continue
            size = self.group.c.outer[i] * self.group.c.inner[i]
            if self.group.c.kind[i] == BATCHED:
                size *= self.c.rows
            start = self.c.sources[i] - PyBytes_AS_STRING(self.inputs)
            views.append(whole[start : start + size])
        return views

    def __dealloc__(self):
        global live
        self.release()
        free(self.pins)
        if self.c.sources != self.few_sources:
            free(self.c.sources)
        live -= 1

    cpdef void release(self):
        """Let go of the input buffers and the sink; the ticket cannot be run any more.

        Without this a sink that knows its ticket would keep both alive until a garbage
        collection. May be called twice.
        """
        cdef int i
        for i in range(self.n_pins):
            PyBuffer_Release(&self.pins[i])
        self.n_pins = 0
        self.inputs = None
        self.sink = None

    @property
    def rows(self):
        """Rows that the request brings."""
        return self.c.rows

    @property
    def enqueued_ns(self):
        """When the queue accepted it, monotonic nanoseconds."""
        return self.c.enqueued_ns

    @property
    def deadline_ns(self):
        """When it expires, monotonic nanoseconds; 0 for never."""
        return self.c.deadline_ns

    @property
    def cancelled(self):
        """Whether ``BatchQueue.cancel`` was called for it."""
        return self.c.state == CANCELLED


cdef void chain_append(chain_t* chain, ticket_t* ticket) noexcept nogil:
    ticket.prev = chain.tail
    ticket.next = NULL
    if chain.tail != NULL:
        chain.tail.next = ticket
    else:
        chain.head = ticket
    chain.tail = ticket


cdef void chain_remove(chain_t* chain, ticket_t* ticket) noexcept nogil:
    if ticket.prev != NULL:
        ticket.prev.next = ticket.next
    else:
        chain.head = ticket.next
    if ticket.next != NULL:
        ticket.next.prev = ticket.prev
    else:
        chain.tail = ticket.prev
    ticket.prev = ticket.next = NULL


cdef bint lies_ready(const chain_t* chain, int64_t least_bytes) noexcept nogil:
    """Whether the inputs of a chain's one ticket may be run where they lie.

    They have to be aligned as an arena's, constant, and of ``least_bytes`` or more in all.
    """
    cdef ticket_t* ticket = chain.head
    cdef group_t* group = ticket.group
    cdef int64_t size = 0
    cdef int i
    if ticket != chain.tail or not ticket.constant:
        return False
    for i in range(group.n_inputs):
        if group.kind[i] == OPAQUE or <uintptr_t>ticket.sources[i] % ALIGNMENT:
            return False
        size += group.outer[i] * group.inner[i] * (
            ticket.rows if group.kind[i] == BATCHED else 1
        )
    return size >= least_bytes


cdef bint gather(const chain_t* chain, int64_t rows, Arena arena) noexcept nogil:
    """Copy the inputs of the tickets from head to tail into the arena, rows side by side.

    ``rows`` is the sum of the tickets' rows. False when memory ran out.
    """
    cdef group_t* group = chain.head.group
    cdef int i
    cdef int64_t outer, inner, chunk, offset, at
    cdef ticket_t* ticket
    cdef char* base
    for i in range(group.n_inputs):
        if group.kind[i] == OPAQUE:
            continue
        outer = group.outer[i]
        inner = group.inner[i]
        base = arena.reserve(i, outer * inner * (rows if group.kind[i] == BATCHED else 1))
        if base == NULL:
            return False
        if group.kind[i] == SHARED:
            copy_bytes(base, chain.head.sources[i], outer * inner)
            continue
        at = 0
        ticket = chain.head
        while True:
            chunk = ticket.rows * inner
            for offset in range(outer):
                copy_bytes(
                    base + (offset * rows + at) * inner,
                    ticket.sources[i] + offset * chunk,
                    chunk,
                )
            at += ticket.rows
            if ticket == chain.tail:
                break
            ticket = ticket.next
    return True
