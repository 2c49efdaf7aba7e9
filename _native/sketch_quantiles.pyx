"""Quantiles of a stream of numbers in a few kilobytes: the KLL sketch.

Karnin, Lang and Liberty, "Optimal Quantile Approximation in Streams" (FOCS 2016), with the sizes
of levels, the lazy compaction and the merging of Apache DataSketches' KLL. A level holds numbers
that stand for ``2**level`` each; a level that is full is sorted, and every other number of it, from
the first or the second by chance, goes one level up.

The rank error that 99 of 100 answers stay within is ``2.296 / k**0.9723`` of all numbers, 1.33%
for ``k`` = 200, as DataSketches measured it for these sizes.
"""

from libc.math cimport INFINITY, ceil, pow
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove

import numpy as np

from gateway._native.sketch_form import Reader, pack
from gateway._native.sketch_input cimport (
    TILE,
    PyBuffer_Release,
    draw,
    enter,
    gather,
    open_table,
    table_t,
)

_KIND = b"quan"
_VERSION = 1

cdef enum:
    LEVELS = 61
    # The least numbers of a level.
    LEAST = 8
    # Sorted by insertion up to here.
    FEW = 16

LEAST_K = 8
MOST_K = 1 << 15

cdef struct sketch_t:
    double* items[LEVELS]
    Py_ssize_t sizes[LEVELS]
    Py_ssize_t allocated[LEVELS]
    double* spare
    Py_ssize_t spare_allocated
    int height
    int k
    Py_ssize_t held
    Py_ssize_t limit
    int64_t count
    int64_t missing
    double minimum
    double maximum
    uint64_t state


cdef Py_ssize_t capacity(const sketch_t* s, int level) noexcept nogil:
    cdef double size = ceil(s.k * pow(2.0 / 3.0, s.height - 1 - level))
    return <Py_ssize_t>size if size > LEAST else LEAST


cdef void measure(sketch_t* s) noexcept nogil:
    cdef int level
    s.limit = 0
    for level in range(s.height):
        s.limit += capacity(s, level)


cdef inline bint reserve(double** items, Py_ssize_t* allocated, Py_ssize_t needed) noexcept nogil:
    """Room for ``needed`` numbers; false where there is no memory."""
    cdef double* made
    cdef Py_ssize_t size
    if needed <= allocated[0]:
        return True
    size = needed + needed // 2 + LEAST
    made = <double*>realloc(items[0], size * sizeof(double))
    if made == NULL:
        return False
    items[0] = made
    allocated[0] = size
    return True


cdef void merge_runs(
    const double* a, Py_ssize_t na, const double* b, Py_ssize_t nb, double* out
) noexcept nogil:
    cdef Py_ssize_t i = 0, j = 0
    cdef bint first
    while i < na and j < nb:
        # Without a branch, which would be guessed wrongly every other time.
        first = a[i] <= b[j]
        out[i + j] = a[i] if first else b[j]
        i += first
        j += not first
    if i < na:
        memcpy(out + i + j, a + i, (na - i) * sizeof(double))
    if j < nb:
        memcpy(out + i + j, b + j, (nb - j) * sizeof(double))


cdef void sort_few(double* items, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i, j
    cdef double value
    for i in range(1, count):
        value = items[i]
        j = i
        while j > 0 and items[j - 1] > value:
            items[j] = items[j - 1]
            j -= 1
        items[j] = value


cdef void sort(double* items, Py_ssize_t count, double* spare) noexcept nogil:
    """Sort ``items``; ``spare`` has as much room."""
    cdef Py_ssize_t run = FEW, at, middle, end
    at = 0
    while at < count:
        sort_few(items + at, min(<Py_ssize_t>FEW, count - at))
        at += FEW
    while run < count:
        at = 0
        while at < count:
            middle = min(at + run, count)
            end = min(middle + run, count)
            merge_runs(items + at, middle - at, items + middle, end - middle, spare + at)
            at = end
        memcpy(items, spare, count * sizeof(double))
        run *= 2


cdef bint promote(sketch_t* s, int level) noexcept nogil:
    """Halve a level into the next one; false where there is no memory."""
    cdef Py_ssize_t size = s.sizes[level], half = size // 2, odd = size - 2 * half
    cdef Py_ssize_t above, i, first
    cdef double* items
    if level + 1 == s.height:
        s.height += 1
        measure(s)
    above = s.sizes[level + 1]
    if not reserve(&s.spare, &s.spare_allocated, max(size, above + half)):
        return False
    if not reserve(&s.items[level + 1], &s.allocated[level + 1], above + half):
        return False
    items = s.items[level]
    if level == 0:
        sort(items, size, s.spare)
    first = odd + <Py_ssize_t>(draw(&s.state) >> 63)
    for i in range(half):
        items[odd + i] = items[first + 2 * i]
    merge_runs(s.items[level + 1], above, items + odd, half, s.spare)
    memcpy(s.items[level + 1], s.spare, (above + half) * sizeof(double))
    s.sizes[level + 1] = above + half
    s.sizes[level] = odd
    s.held -= half
    return True


cdef bint compress(sketch_t* s) noexcept nogil:
    """Make room by halving the lowest levels that are full; false where there is no memory."""
    cdef int level
    while s.held >= s.limit:
        level = 0
        while s.sizes[level] < capacity(s, level):
            level += 1
        if not promote(s, level):
            return False
    return True


cdef bint update(sketch_t* s, const double* values, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i
    cdef double x
    for i in range(count):
        x = values[i]
        if x != x:
            s.missing += 1
            continue
        if s.sizes[0] == s.allocated[0]:
            if not reserve(&s.items[0], &s.allocated[0], s.sizes[0] + 1):
                return False
        s.items[0][s.sizes[0]] = x
        s.sizes[0] += 1
        s.count += 1
        s.held += 1
        s.minimum = x if x < s.minimum else s.minimum
        s.maximum = x if x > s.maximum else s.maximum
        if s.held >= s.limit and not compress(s):
            return False
    return True


cdef bint update_all(sketch_t* s, const table_t* table) noexcept nogil:
    cdef double values[TILE]
    cdef Py_ssize_t row = 0, count
    while row < table.rows:
        count = min(<Py_ssize_t>TILE, table.rows - row)
        gather(table.kind, table.data + row * table.row_stride, table.row_stride, count, values)
        if not update(s, values, count):
            return False
        row += count
    return True


cdef bint take_over(sketch_t* s, const sketch_t* other) noexcept nogil:
    """Add what another one holds, level by level; false where there is no memory."""
    cdef int level
    cdef Py_ssize_t mine, theirs
    if other.height > s.height:
        s.height = other.height
        measure(s)
    for level in range(other.height):
        mine, theirs = s.sizes[level], other.sizes[level]
        if theirs == 0:
            continue
        if not reserve(&s.items[level], &s.allocated[level], mine + theirs):
            return False
        if level == 0:
            memcpy(s.items[0] + mine, other.items[0], theirs * sizeof(double))
        else:
            if not reserve(&s.spare, &s.spare_allocated, mine + theirs):
                return False
            merge_runs(s.items[level], mine, other.items[level], theirs, s.spare)
            memmove(s.items[level], s.spare, (mine + theirs) * sizeof(double))
        s.sizes[level] = mine + theirs
        s.held += theirs
    s.count += other.count
    s.missing += other.missing
    s.minimum = min(s.minimum, other.minimum)
    s.maximum = max(s.maximum, other.maximum)
    return compress(s)


cdef class QuantileSketch:
    """A KLL sketch of numbers; infinities are numbers like others, a NaN is missing.

    Used by one thread at a time; ``add`` releases the GIL. The same numbers in the same order with
    the same seed give the same sketch, however they were cut into blocks.

    Attributes:
        k: how much it holds, and so how exact it is; some ``3 * k`` numbers in all.
        count: numbers that went in.
        missing: NaNs, which did not.
    """

    cdef sketch_t _s
    cdef bint _busy

    def __cinit__(self, int k=200, uint64_t seed=0):
        if not LEAST_K <= k <= MOST_K:
            raise ValueError(f"k must be from {LEAST_K} to {MOST_K}, not {k}")
        self._s.k = k
        self._s.height = 1
        self._s.minimum, self._s.maximum = INFINITY, -INFINITY
        self._s.state = seed
        measure(&self._s)

    def __dealloc__(self):
        cdef int level
        for level in range(LEVELS):
            free(self._s.items[level])
        free(self._s.spare)

    def add(self, values):
        """Take in ``values``: numbers of shape ``[n]``, or ``[n, 1]``.

        Raises ``ValueError`` for another shape, ``TypeError`` for what holds no integers,
        booleans, float32 or float64.
        """
        cdef Py_buffer view
        cdef table_t source
        cdef bint done
        open_table(values, &view, &source)
        try:
            if source.columns != 1:
                raise ValueError(f"expected one column of numbers, not {source.columns}")
            enter(&self._busy)
            try:
                with nogil:
                    done = update_all(&self._s, &source)
            finally:
                self._busy = False
            if not done:
                raise MemoryError
        finally:
            PyBuffer_Release(&view)

    def merge(self, QuantileSketch other not None):
        """Take in what ``other`` has seen; ``ValueError`` where its ``k`` is another."""
        cdef bint done
        if other._s.k != self._s.k:
            raise ValueError(f"only sketches of one k can be merged, not {self.k} and {other.k}")
        if other is self:
            other = QuantileSketch.from_bytes(self.to_bytes())
        enter(&self._busy)
        try:
            enter(&other._busy)
            try:
                with nogil:
                    done = take_over(&self._s, &other._s)
            finally:
                other._busy = False
        finally:
            self._busy = False
        if not done:
            raise MemoryError

    @property
    def k(self):
        return self._s.k

    @property
    def count(self):
        return self._s.count

    @property
    def missing(self):
        return self._s.missing

    @property
    def minimum(self):
        """The least number, exactly; NaN where there was none."""
        return self._s.minimum if self._s.count else float("nan")

    @property
    def maximum(self):
        """The greatest number, exactly; NaN where there was none."""
        return self._s.maximum if self._s.count else float("nan")

    @property
    def rank_error(self):
        """What 99 of 100 ranks are within, as a share of all numbers."""
        return 2.296 / pow(self._s.k, 0.9723)

    def items(self):
        """What it holds: numbers, ascending, and how many each of them stands for."""
        cdef int level
        cdef double[::1] row
        enter(&self._busy)
        try:
            values, weights = [], []
            for level in range(self._s.height):
                if self._s.sizes[level]:
                    row = <double[:self._s.sizes[level]]>self._s.items[level]
                    values.append(np.array(row))
                    weights.append(np.full(self._s.sizes[level], 1 << level, np.int64))
        finally:
            self._busy = False
        if not values:
            return np.empty(0), np.empty(0, np.int64)
        values, weights = np.concatenate(values), np.concatenate(weights)
        order = np.argsort(values, kind="stable")
        return values[order], weights[order]

    def quantiles(self, shares):
        """For each share of 0 to 1 the least number held that so many are at or below.

        The first and the last are the exact minimum and maximum; NaN where there was no number.
        """
        shares = np.asarray(shares, np.float64)
        if not ((shares >= 0) & (shares <= 1)).all():
            raise ValueError("shares must be from 0 to 1")
        values, weights = self.items()
        if not values.size:
            return np.full(shares.shape, np.nan)
        reached = np.cumsum(weights)
        at = np.searchsorted(reached, shares * self._s.count)
        found = values[np.minimum(at, values.size - 1)]
        found = np.where(shares == 0, self._s.minimum, found)
        return np.where(shares == 1, self._s.maximum, found)

    def ranks(self, values):
        """For each of ``values`` the share of all numbers at or below it; NaN where there was none."""
        held, weights = self.items()
        if not held.size:
            return np.full(np.shape(values), np.nan)
        reached = np.concatenate([[0], np.cumsum(weights)])
        return reached[np.searchsorted(held, values, side="right")] / self._s.count

    def to_bytes(self):
        """All of it as bytes; ``from_bytes`` reads them."""
        cdef int level
        cdef double[::1] row
        enter(&self._busy)
        try:
            parts = [self._s.k, self._s.height, self._s.count, self._s.missing]
            parts.append(np.array([self._s.state], np.uint64))
            parts.append(np.array([self._s.minimum, self._s.maximum]))
            parts += [int(self._s.sizes[level]) for level in range(self._s.height)]
            for level in range(self._s.height):
                if self._s.sizes[level]:
                    row = <double[:self._s.sizes[level]]>self._s.items[level]
                    parts.append(np.array(row))
        finally:
            self._busy = False
        return pack(_KIND, _VERSION, *parts)

    @staticmethod
    def from_bytes(data):
        """What ``to_bytes`` gave; ``ValueError`` where it is not that."""
        reader = Reader(data, _KIND, _VERSION)
        cdef QuantileSketch made = QuantileSketch(reader.integer(LEAST_K, MOST_K))
        made._read(reader)
        return made

    cdef _read(self, reader):
        cdef int level
        cdef double[::1] row
        self._s.height = reader.integer(1, LEVELS)
        self._s.count, self._s.missing = reader.integer(0, 1 << 62), reader.integer(0, 1 << 62)
        self._s.state = reader.words(1)[0]
        low, high = reader.numbers(2).tolist()
        measure(&self._s)
        sizes = [reader.integer(0, self._s.limit) for _ in range(self._s.height)]
        reader.check(sum(sizes) < self._s.limit, "it holds more than it may")
        held = sum([size << at for at, size in enumerate(sizes)])
        reader.check(held == self._s.count, "its weights do not add up to its count")
        if held:
            reader.check(low <= high, "its range is none")
        else:
            reader.check(low == INFINITY and high == -INFINITY, "it has a range of nothing")
        self._s.minimum, self._s.maximum = low, high
        for level, size in enumerate(sizes):
            numbers = reader.numbers(size)
            within = ((numbers >= low) & (numbers <= high)).all()
            reader.check(within, "a number is outside of its range")
            reader.check(level == 0 or (numbers[1:] >= numbers[: max(size - 1, 0)]).all(), "not sorted")
            if not reserve(&self._s.items[level], &self._s.allocated[level], size):
                raise MemoryError
            if size:
                row = numbers.copy()
                memcpy(self._s.items[level], &row[0], size * sizeof(double))
            self._s.sizes[level] = size
        self._s.held = sum(sizes)
        reader.end()
