"""Batches' rows gathered side by side, so that many small batches are published as one block.

For one thread. The memory is the caller's: writable arrays with a place for each row, which must
stay where they are while the gatherer has them.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from gateway._native.queue cimport Batch
from gateway._native.ticket cimport CANCELLED, Ticket

cdef enum:
    # Numbers of each request: its rows, and its latency.
    PER_REQUEST = 2


cdef class Gatherer:
    """Copies whole batches into columns, and each request's rows and latency into a table.

    Attributes:
        rows, requests: how many it has.

    Args:
        columns: for each tensor a writable C-contiguous buffer of ``max_rows`` rows.
        row_bytes: the bytes of a row of each.
        table: a writable buffer of ``2 * max_rows`` ``int64``: for each request its rows, and the
            nanoseconds from its acceptance to the end of its batch's run.
        max_rows: rows, and at most as many requests, that there is room for.

    Raises:
        ValueError: a buffer of another size.
        BufferError, TypeError: one that cannot be written.
    """

    cdef Py_buffer* pins
    cdef int64_t* row_bytes
    cdef int n_columns
    cdef int n_pins
    cdef readonly int64_t rows
    cdef readonly int64_t requests
    cdef int64_t max_rows

    def __cinit__(self, columns, row_bytes, table, int64_t max_rows):
        cdef int i
        self.n_columns = <int>len(columns)
        if len(row_bytes) != self.n_columns or max_rows < 1:
            raise ValueError("a gatherer has a row size for each column, and room for a row")
        self.max_rows = max_rows
        # The table is the last of the pins.
        self.pins = <Py_buffer*>calloc(self.n_columns + 1, sizeof(Py_buffer))
        self.row_bytes = <int64_t*>calloc(self.n_columns + 1, sizeof(int64_t))
        if self.pins == NULL or self.row_bytes == NULL:
            raise MemoryError("no memory for a gatherer")
        for i in range(self.n_columns):
            self.row_bytes[i] = row_bytes[i]
        self.row_bytes[self.n_columns] = PER_REQUEST * sizeof(int64_t)
        for i, buffer in enumerate([*columns, table]):
            PyObject_GetBuffer(buffer, &self.pins[i], PyBUF_SIMPLE | PyBUF_WRITABLE)
            self.n_pins = i + 1
            if self.row_bytes[i] < 0 or self.pins[i].len != max_rows * self.row_bytes[i]:
                raise ValueError(
                    f"buffer {i} has {self.pins[i].len} bytes, expected {max_rows} rows of "
                    f"{self.row_bytes[i]}"
                )

    def __dealloc__(self):
        cdef int i
        for i in range(self.n_pins):
            PyBuffer_Release(&self.pins[i])
        free(self.pins)
        free(self.row_bytes)

    def add(self, Batch batch not None, list arrays not None, int64_t ended_ns):
        """Copy a batch, whose tickets have not been released.

        Args:
            arrays: all rows of each column, C-contiguous, the rows first.
            ended_ns: when it had run, monotonic nanoseconds.

        Returns:
            whether it was copied: not where there is no room for it, one of its requests was
            cancelled, or an array is not of so many rows of that size. Then nothing has changed.
        """
        cdef int64_t* numbers
        cdef int64_t requests = len(batch.tickets)
        cdef int64_t counted = 0
        cdef Ticket ticket
        cdef Py_buffer given
        cdef int i
        if (
            batch.rows > self.max_rows - self.rows
            or requests > self.max_rows - self.requests
            or len(arrays) != self.n_columns
        ):
            return False
        numbers = <int64_t*>self.pins[self.n_columns].buf + PER_REQUEST * self.requests
        for ticket in batch.tickets:
            if ticket.c.state == CANCELLED:
                return False
            numbers[0] = ticket.c.rows
            numbers[1] = ended_ns - ticket.c.enqueued_ns
            numbers += PER_REQUEST
            counted += ticket.c.rows
        if counted != batch.rows:
            return False
        # What was copied is not there before the counts say so.
        for i in range(self.n_columns):
            try:
                PyObject_GetBuffer(arrays[i], &given, PyBUF_SIMPLE)
            except BufferError:
                return False
            try:
                if given.len != batch.rows * self.row_bytes[i]:
                    return False
                memcpy(
                    <char*>self.pins[i].buf + self.rows * self.row_bytes[i], given.buf, given.len
                )
            finally:
                PyBuffer_Release(&given)
        self.rows += batch.rows
        self.requests += requests
        return True

    def clear(self):
        """Begin again with nothing."""
        self.rows = 0
        self.requests = 0
