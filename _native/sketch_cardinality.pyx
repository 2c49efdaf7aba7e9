"""How many different values there were, estimated in a few kilobytes: HyperLogLog.

Flajolet, Fusy, Gandouet and Meunier, "HyperLogLog" (2007), over 64-bit hashes, with the estimator
of Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (arXiv 1702.01284), which
needs no tables and no changes of method. The standard error is ``1.04 / sqrt(2**precision)`` of
the estimate: 1.6% for the default precision of 12, in 4 KB.
"""

from libc.math cimport INFINITY, log, sqrt
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

import numpy as np

from gateway._native.sketch_form import Reader, pack
from gateway._native.sketch_input cimport (
    TILE,
    PyBuffer_Release,
    enter,
    gather,
    hash_bytes,
    hash_number,
    open_table,
    table_t,
)
from gateway._native.sketch_text cimport read_texts, text_t

_KIND = b"card"
_VERSION = 1

LEAST_PRECISION = 4
MOST_PRECISION = 18


cdef inline void note(uint8_t* registers, int precision, uint64_t hashed) noexcept nogil:
    cdef uint64_t rest = hashed << precision
    cdef uint8_t rank = 1
    cdef uint8_t most = <uint8_t>(65 - precision)
    # Half of all hashes stop at once, and so on: a loop is as fast as counting zeros.
    while rank < most and not (rest >> 63):
        rest <<= 1
        rank += 1
    if registers[hashed >> (64 - precision)] < rank:
        registers[hashed >> (64 - precision)] = rank


cdef int64_t note_numbers(uint8_t* registers, int precision, const table_t* table) noexcept nogil:
    """Take in all numbers of a table; returns how many are missing."""
    cdef double values[TILE]
    cdef Py_ssize_t row = 0, count, column, i
    cdef int64_t missing = 0
    cdef const char* at
    while row < table.rows:
        count = min(<Py_ssize_t>TILE, table.rows - row)
        at = table.data + row * table.row_stride
        for column in range(table.columns):
            gather(table.kind, at + column * table.column_stride, table.row_stride, count, values)
            for i in range(count):
                if values[i] != values[i]:
                    missing += 1
                else:
                    note(registers, precision, hash_number(values[i]))
        row += count
    return missing


cdef int64_t note_texts(
    uint8_t* registers, int precision, const text_t* texts, Py_ssize_t count
) noexcept nogil:
    cdef Py_ssize_t i
    cdef int64_t missing = 0
    for i in range(count):
        if texts[i].size == 0:
            missing += 1
        else:
            note(registers, precision, hash_bytes(texts[i].data, texts[i].size))
    return missing


cdef double sigma(double x) noexcept nogil:
    cdef double y = 1, z = x, before = -1
    if x == 1:
        return INFINITY
    while z != before:
        x *= x
        before = z
        z += x * y
        y += y
    return z


cdef double tau(double x) noexcept nogil:
    cdef double y = 1, z = 1 - x, before = -1
    if x == 0 or x == 1:
        return 0
    while z != before:
        x = sqrt(x)
        before = z
        y *= 0.5
        z -= (1 - x) * (1 - x) * y
    return z / 3


cdef class Cardinality:
    """Estimates how many different numbers, or texts, went in; not both in one object.

    Used by one thread at a time; loops run without the GIL. Numbers are compared as float64; -0 is
    0. A NaN, ``None`` and the empty text are missing.

    Attributes:
        precision: the logarithm of the number of bytes that it takes.
        missing: values that were none.
    """

    cdef uint8_t* _registers
    cdef int _precision
    cdef int64_t _missing
    cdef bint _busy

    def __cinit__(self, int precision=12):
        if not LEAST_PRECISION <= precision <= MOST_PRECISION:
            raise ValueError(
                f"precision must be from {LEAST_PRECISION} to {MOST_PRECISION}, not {precision}"
            )
        self._precision = precision
        self._registers = <uint8_t*>calloc(1 << precision, 1)
        if self._registers == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self._registers)

    def add(self, table):
        """Take in all numbers of a table, ``[rows]`` or ``[rows, columns]``.

        Raises ``TypeError`` where it holds no integers, booleans, float32 or float64.
        """
        cdef Py_buffer view
        cdef table_t source
        cdef int64_t missing
        open_table(table, &view, &source)
        try:
            enter(&self._busy)
            try:
                with nogil:
                    missing = note_numbers(self._registers, self._precision, &source)
                self._missing += missing
            finally:
                self._busy = False
        finally:
            PyBuffer_Release(&view)

    def add_texts(self, texts):
        """Take in a list, or an array of objects, of ``str``, ``bytes`` or ``None``.

        Raises ``TypeError`` for an element of another type; those before it are in by then.
        """
        cdef list values = texts if isinstance(texts, list) else texts.ravel().tolist()
        cdef text_t found[TILE]
        cdef Py_ssize_t at = 0, count
        cdef int64_t missing
        values = list(values)
        enter(&self._busy)
        try:
            while at < len(values):
                count = read_texts(values, at, found)
                with nogil:
                    missing = note_texts(self._registers, self._precision, found, count)
                self._missing += missing
                at += count
        finally:
            self._busy = False

    def merge(self, Cardinality other not None):
        """Take in what ``other`` has seen; ``ValueError`` where its precision is another."""
        cdef Py_ssize_t i
        if other._precision != self._precision:
            raise ValueError(
                f"only sketches of one precision can be merged, not {self._precision} and "
                f"{other._precision}"
            )
        enter(&self._busy)
        try:
            if other is not self:
                enter(&other._busy)
                other._busy = False
            for i in range(1 << self._precision):
                self._registers[i] = max(self._registers[i], other._registers[i])
            self._missing += other._missing
        finally:
            self._busy = False

    @property
    def precision(self):
        return self._precision

    @property
    def missing(self):
        return self._missing

    @property
    def standard_error(self):
        """Of the estimate, as a share of it."""
        return 1.04 / sqrt(<double>(1 << self._precision))

    @property
    def estimate(self):
        """How many different values there were, about; exactly 0 where there was none."""
        cdef int64_t counts[66]
        cdef Py_ssize_t i
        cdef int last = 64 - self._precision, level
        cdef double m = <double>(1 << self._precision), z
        for level in range(66):
            counts[level] = 0
        enter(&self._busy)
        for i in range(1 << self._precision):
            counts[self._registers[i]] += 1
        self._busy = False
        z = m * tau(1 - counts[last + 1] / m)
        for level in range(last, 0, -1):
            z = 0.5 * (z + counts[level])
        z += m * sigma(counts[0] / m)
        return m * m / (2 * log(2.0) * z)

    def to_bytes(self):
        """All of it as bytes; ``from_bytes`` reads them."""
        enter(&self._busy)
        try:
            held = (<char*>self._registers)[: 1 << self._precision]
        finally:
            self._busy = False
        return pack(_KIND, _VERSION, self._precision, self._missing, held)

    @staticmethod
    def from_bytes(data):
        """What ``to_bytes`` gave; ``ValueError`` where it is not that."""
        reader = Reader(data, _KIND, _VERSION)
        precision = reader.integer(LEAST_PRECISION, MOST_PRECISION)
        missing = reader.integer(0, 1 << 62)
        cdef bytes held = reader.raw(1 << precision)
        reader.end()
        highest = int(np.frombuffer(held, np.uint8).max())
        reader.check(highest <= 65 - precision, "a register holds more than there are bits")
        cdef Cardinality made = Cardinality(precision)
        made._missing = missing
        memcpy(made._registers, <const char*>held, len(held))
        return made
