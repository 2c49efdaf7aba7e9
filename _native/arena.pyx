"""Aligned, reused memory for the tensors of one batch in flight."""

from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport calloc, free
from posix.stdlib cimport posix_memalign

cdef enum:
    # Small enough to waste nothing that matters, large enough to seldom grow.
    SMALLEST = 4096

cdef int64_t live = 0


def live_bytes():
    """Bytes held by all arenas of the process; 0 once every one of them is gone."""
    return live


cdef class Arena:
    """A fixed number of growing buffers, aligned to 64 bytes.

    One thread at a time uses an arena. A buffer's address holds until ``generation`` changes:
    a buffer that grew has moved.

    Args:
        n_buffers: how many.
        in_place_from: a batch of one request whose rows have at least so many bytes may stay where
            they came, see ``Batch``; 0 for never.

    Raises:
        MemoryError: the table of buffers could not be allocated.
    """

    def __cinit__(self, int n_buffers, int64_t in_place_from=0):
        self.n_buffers = n_buffers
        self.in_place_from = in_place_from
        self.buffers = <char**>calloc(max(n_buffers, 1), sizeof(char*))
        self.capacities = <int64_t*>calloc(max(n_buffers, 1), sizeof(int64_t))
        if self.buffers == NULL or self.capacities == NULL:
            raise MemoryError(f"no memory for an arena of {n_buffers} buffers")

    def __dealloc__(self):
        global live
        cdef int i
        if self.buffers != NULL and self.capacities != NULL:
            for i in range(self.n_buffers):
                live -= self.capacities[i]
                free(self.buffers[i])
        free(self.buffers)
        free(self.capacities)

    cdef char* reserve(self, int index, int64_t nbytes) noexcept nogil:
        """The address of buffer ``index``, grown to hold ``nbytes``; NULL when memory is out.

        Growing doubles, so a lane that meets ever longer inputs moves its buffers seldom. The old
        content is not kept.
        """
        global live
        cdef int64_t capacity = self.capacities[index]
        cdef void* fresh = NULL
        if nbytes <= capacity and capacity > 0:
            return self.buffers[index]
        if capacity < SMALLEST:
            capacity = SMALLEST
        while capacity < nbytes:
            capacity *= 2
        if posix_memalign(&fresh, ALIGNMENT, capacity) != 0:
            return NULL
        free(self.buffers[index])
        with gil:
            live += capacity - self.capacities[index]
        self.buffers[index] = <char*>fresh
        self.capacities[index] = capacity
        self.generation += 1
        return self.buffers[index]

    def ensure(self, int index, int64_t nbytes):
        """The address of buffer ``index`` as an int, grown to at least ``nbytes``.

        Raises:
            IndexError: no such buffer.
            MemoryError: the memory is not to be had.
        """
        if not 0 <= index < self.n_buffers:
            raise IndexError(f"the arena has {self.n_buffers} buffers, asked for {index}")
        cdef char* address = self.reserve(index, nbytes)
        if address == NULL:
            raise MemoryError(f"no memory for a buffer of {nbytes} bytes")
        return <uintptr_t>address

    @property
    def nbytes(self):
        """Bytes that the arena holds now."""
        cdef int64_t total = 0
        cdef int i
        for i in range(self.n_buffers):
            total += self.capacities[i]
        return total
