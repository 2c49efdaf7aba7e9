"""A uniform sample of the rows of a stream, of fixed size.

Each row draws 64 random bits, and the rows with the least are kept (bottom-k sampling): every set
of rows is as likely as any other, and the sample of two streams together is what is least of both
samples, so that samples merge exactly.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

import numpy as np

from gateway._native.sketch_form import Reader, pack
from gateway._native.sketch_input cimport (
    TILE,
    PyBuffer_Release,
    draw,
    enter,
    gather,
    mix,
    open_table,
    table_t,
)

_KIND = b"rows"
_VERSION = 1

#: Most bytes that one sample may take, 16 of them beside each row.
MOST_BYTES = 1 << 28

cdef struct entry_t:
    uint64_t key
    # Where its row lies.
    Py_ssize_t place


cdef void sink(entry_t* heap, Py_ssize_t size, Py_ssize_t at) noexcept nogil:
    """Let the entry at ``at`` sink until none below it has a greater key."""
    cdef entry_t moved = heap[at]
    cdef Py_ssize_t child = 2 * at + 1
    while child < size:
        if child + 1 < size and heap[child + 1].key > heap[child].key:
            child += 1
        if heap[child].key <= moved.key:
            break
        heap[at] = heap[child]
        at = child
        child = 2 * at + 1
    heap[at] = moved


cdef void rise(entry_t* heap, Py_ssize_t at) noexcept nogil:
    cdef entry_t moved = heap[at]
    cdef Py_ssize_t above
    while at > 0:
        above = (at - 1) // 2
        if heap[above].key >= moved.key:
            break
        heap[at] = heap[above]
        at = above
    heap[at] = moved


cdef class Reservoir:
    """A sample of at most ``capacity`` rows of ``columns`` numbers.

    Used by one thread at a time; ``add`` releases the GIL. The same rows with the same seed give
    the same sample, however they were cut into blocks. Streams whose samples are to be merged need
    seeds of their own.

    Attributes:
        capacity: most rows that are kept.
        columns: numbers of a row.
        seed: what the random bits come from.
        seen: rows that went in.
    """

    cdef entry_t* _heap
    cdef char* _rows
    cdef Py_ssize_t _capacity
    cdef Py_ssize_t _columns
    cdef Py_ssize_t _held
    cdef bint _single
    cdef int64_t _seen
    cdef uint64_t _seed
    cdef uint64_t _state
    cdef bint _busy

    def __cinit__(self, Py_ssize_t capacity, Py_ssize_t columns, dtype="float64", uint64_t seed=0):
        kind = np.dtype(dtype)
        if kind not in (np.float32, np.float64):
            raise ValueError(f"rows are kept as float32 or float64, not as {kind}")
        size = int(capacity) * int(columns) * kind.itemsize
        if capacity < 1 or columns < 1 or size + int(capacity) * sizeof(entry_t) > MOST_BYTES:
            raise ValueError(
                f"expected 1 or more rows and columns that take at most {MOST_BYTES} bytes, "
                f"not {capacity} of {columns}"
            )
        self._capacity, self._columns = capacity, columns
        self._single = kind.itemsize == 4
        self._seed = seed
        self._state = mix(seed + 1)
        self._heap = <entry_t*>malloc(capacity * sizeof(entry_t))
        self._rows = <char*>malloc(size)
        if self._heap == NULL or self._rows == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self._heap)
        free(self._rows)

    cdef Py_ssize_t _place(self, uint64_t key) noexcept nogil:
        """Where the row that drew ``key`` is to be put; -1 where it is not kept."""
        cdef Py_ssize_t place = self._held
        if place < self._capacity:
            self._heap[place].key = key
            self._heap[place].place = place
            self._held += 1
            rise(self._heap, place)
            return place
        if key >= self._heap[0].key:
            return -1
        place = self._heap[0].place
        self._heap[0].key = key
        sink(self._heap, self._held, 0)
        return place

    cdef void _put(self, Py_ssize_t place, const table_t* table, Py_ssize_t row) noexcept nogil:
        cdef double values[TILE]
        cdef const char* at = table.data + row * table.row_stride
        cdef char* to = self._rows + place * self._columns * (4 if self._single else 8)
        cdef Py_ssize_t column = 0, count, i
        while column < self._columns:
            count = min(<Py_ssize_t>TILE, self._columns - column)
            gather(
                table.kind, at + column * table.column_stride, table.column_stride, count, values
            )
            if self._single:
                for i in range(count):
                    (<float*>to)[column + i] = <float>values[i]
            else:
                memcpy(to + column * sizeof(double), values, count * sizeof(double))
            column += count

    def add(self, table):
        """Offer the rows of ``table``, ``[rows, columns]``; ``[rows]`` where there is one column.

        Raises ``ValueError`` where it has another number of columns, ``TypeError`` where it holds
        no integers, booleans, float32 or float64.
        """
        cdef Py_buffer view
        cdef table_t source
        cdef Py_ssize_t row, place
        open_table(table, &view, &source)
        try:
            if source.columns != self._columns:
                raise ValueError(
                    f"expected a table of {self._columns} columns, not of {source.columns}"
                )
            enter(&self._busy)
            try:
                with nogil:
                    for row in range(source.rows):
                        place = self._place(draw(&self._state))
                        if place >= 0:
                            self._put(place, &source, row)
                self._seen += source.rows
            finally:
                self._busy = False
        finally:
            PyBuffer_Release(&view)

    def merge(self, Reservoir other not None):
        """Become the sample of both streams together.

        Raises ``ValueError`` where the capacities, columns or dtypes differ, or the seeds do not:
        then both drew the same random bits.
        """
        cdef Py_ssize_t i, place, size = self._columns * (4 if self._single else 8)
        if (self._capacity, self._columns, self._single) != (
            other._capacity,
            other._columns,
            other._single,
        ):
            raise ValueError("only samples of one capacity, number of columns and dtype can be merged")
        if self._seed == other._seed:
            raise ValueError("samples with the same seed drew the same bits: give each its own")
        enter(&self._busy)
        try:
            enter(&other._busy)
            for i in range(other._held):
                place = self._place(other._heap[i].key)
                if place >= 0:
                    memcpy(
                        self._rows + place * size, other._rows + other._heap[i].place * size, size
                    )
            self._seen += other._seen
            other._busy = False
        finally:
            self._busy = False

    def clear(self):
        """Forget all rows, but draw other bits than before."""
        enter(&self._busy)
        self._held = 0
        self._seen = 0
        self._busy = False

    @property
    def capacity(self):
        return self._capacity

    @property
    def columns(self):
        return self._columns

    @property
    def seed(self):
        return self._seed

    @property
    def seen(self):
        return self._seen

    @property
    def dtype(self):
        """What rows are kept as."""
        return np.dtype(np.float32 if self._single else np.float64)

    def __len__(self):
        return self._held

    cdef tuple _sorted(self):
        """The keys, ascending, and the rows in their order."""
        cdef Py_ssize_t i
        enter(&self._busy)
        try:
            keys = np.array([self._heap[i].key for i in range(self._held)], np.uint64)
            places = np.array([self._heap[i].place for i in range(self._held)], np.int64)
            size = self._held * self._columns * (4 if self._single else 8)
            held = np.frombuffer((<char*>self._rows)[:size], self.dtype)
        finally:
            self._busy = False
        order = np.argsort(keys, kind="stable")
        return keys[order], held.reshape(self._held, self._columns)[places[order]]

    def rows(self):
        """The rows that are kept, as a new array ``[rows, columns]`` in a random order."""
        return self._sorted()[1]

    def to_bytes(self):
        """All of it as bytes; ``from_bytes`` reads them."""
        keys, rows = self._sorted()
        return pack(
            _KIND,
            _VERSION,
            self._capacity,
            self._columns,
            4 if self._single else 8,
            self._seen,
            np.array([self._seed, self._state], np.uint64),
            len(keys),
            keys,
            rows,
        )

    @staticmethod
    def from_bytes(data):
        """What ``to_bytes`` gave; ``ValueError`` where it is not that."""
        cdef Py_ssize_t i
        reader = Reader(data, _KIND, _VERSION)
        capacity, columns = reader.integer(1, MOST_BYTES), reader.integer(1, MOST_BYTES)
        itemsize, seen = reader.integer(4, 8), reader.integer(0, 1 << 62)
        reader.check(itemsize != 5 and itemsize != 6 and itemsize != 7, "it has no such numbers")
        size = columns * itemsize + sizeof(entry_t)
        reader.check(capacity * size <= MOST_BYTES, "it is larger than one may be")
        seed, state = reader.words(2).tolist()
        held = reader.integer(0, min(capacity, seen))
        keys = reader.words(held)
        cdef bytes rows = reader.raw(held * columns * itemsize)
        reader.end()
        reader.check(bool((keys[1:] >= keys[: max(held - 1, 0)]).all()), "its keys are not sorted")
        reader.check(held == min(capacity, seen), "it holds fewer rows than it has seen")
        kind = np.float32 if itemsize == 4 else np.float64
        cdef Reservoir made = Reservoir(capacity, columns, kind, seed)
        for i in range(held):
            # Descending keys are a heap.
            made._heap[i].key = keys[held - 1 - i]
            made._heap[i].place = held - 1 - i
        memcpy(made._rows, <const char*>rows, len(rows))
        made._held, made._seen, made._state = held, seen, state
        return made
