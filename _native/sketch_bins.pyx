"""Counts the columns of tables into bins that are fixed beforehand, in constant memory.

The bins are numpy's: bin ``i`` holds ``edges[i] <= x < edges[i + 1]``, and the last bin its upper
edge too, so that ``counts(c)[1:-1]`` is what ``numpy.histogram(column, edges)`` gives. Numbers
are compared as float64, as numpy does.
"""

from libc.math cimport INFINITY, NAN, isfinite, nextafter
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

import numpy as np

from gateway._native.sketch_form import Reader, pack
from gateway._native.sketch_input cimport (
    TILE,
    PyBuffer_Release,
    enter,
    gather,
    open_table,
    table_t,
)

_KIND = b"bins"
_VERSION = 1

cdef enum:
    # Edges of one cell that are compared one by one; of more, a search is faster.
    MOST_IN_CELL = 6
    LEAST_CELLS = 256

#: Most columns of one object, and most bins of one column.
MOST_COLUMNS = 1 << 16
MOST_BINS = 1 << 16

cdef struct column_t:
    # bins + 1 edges. The last is the number after the last edge: then all bins are half open.
    double* edges
    # below, the bins, above
    int64_t* counts
    Py_ssize_t bins
    # A cell is (x - low) * scale, cut to whole numbers from 0 to cells - 1, which never falls
    # where x grows: of the edges only those in the cell of x, ``most`` at most, need be compared
    # with it, ``before`` of them are below. Where edges lie too close together cells is 0.
    double low
    double scale
    Py_ssize_t cells
    Py_ssize_t most
    const int32_t* before
    # What is summed is the distance to this number: sums of squares stay exact far from 0.
    double shift
    double total
    double squares
    double minimum
    double maximum
    int64_t missing
    int64_t infinite


cdef inline void find_by_cell(
    const column_t* c, const double* values, Py_ssize_t count, int32_t* places
) noexcept nogil:
    """How many edges are at or below each value; 0 for what is not a number."""
    cdef double top = <double>(c.cells - 1)
    cdef double low = c.low, scale = c.scale, x, guess
    cdef Py_ssize_t i, j, most = c.most
    cdef const double* edges
    cdef int32_t place
    for i in range(count):
        x = values[i]
        guess = (x - low) * scale
        guess = guess if guess > 0 else 0
        guess = guess if guess < top else top
        place = c.before[<int32_t>guess]
        edges = c.edges + place
        for j in range(most):
            place += x >= edges[j]
        places[i] = place


cdef inline void find_by_search(
    const column_t* c, const double* values, Py_ssize_t count, int32_t* places
) noexcept nogil:
    """The same for any edges, by a binary search without branches."""
    cdef const double* edges = c.edges
    cdef Py_ssize_t i, length, half, base
    cdef double x
    for i in range(count):
        x = values[i]
        base = 0
        length = c.bins + 1
        while length > 1:
            half = length >> 1
            base += half & -<Py_ssize_t>(edges[base + half - 1] <= x)
            length -= half
        places[i] = <int32_t>(base + (edges[base] <= x))


cdef void count_column(column_t* c, const double* values, Py_ssize_t count) noexcept nogil:
    cdef int32_t places[TILE]
    cdef double x, distance, total = 0, squares = 0
    cdef double low = c.minimum, high = c.maximum
    cdef int64_t* counts = c.counts
    cdef Py_ssize_t i
    if c.cells:
        find_by_cell(c, values, count, places)
    else:
        find_by_search(c, values, count, places)
    for i in range(count):
        x = values[i]
        if x != x:
            c.missing += 1
            continue
        counts[places[i]] += 1
        if x - x != 0:
            c.infinite += 1
            continue
        distance = x - c.shift
        total += distance
        squares += distance * distance
        low = x if x < low else low
        high = x if x > high else high
    c.total += total
    c.squares += squares
    c.minimum = low
    c.maximum = high


cdef void count_table(column_t* columns, const table_t* table) noexcept nogil:
    cdef double values[TILE]
    cdef Py_ssize_t row = 0, count, column
    cdef const char* at
    while row < table.rows:
        count = min(<Py_ssize_t>TILE, table.rows - row)
        at = table.data + row * table.row_stride
        for column in range(table.columns):
            gather(table.kind, at + column * table.column_stride, table.row_stride, count, values)
            count_column(&columns[column], values, count)
        row += count


cdef class BinCounts:
    """Counts each column of row-major tables into bins of its own.

    Used by one thread at a time; ``add`` releases the GIL. Infinities count as below or above the
    edges and in ``infinite``, and in no sum, minimum or maximum. A NaN is missing.

    Attributes:
        columns: how many there are.
        rows: that were counted.
    """

    cdef column_t* _columns
    cdef Py_ssize_t _count
    cdef int64_t _rows
    cdef bint _busy
    cdef list _edges
    cdef list _counts

    def __cinit__(self, edges):
        """Bins with the ``edges``, for each column an ascending array of at least two numbers."""
        # Held in Python, so that what columns point to stays.
        edges = list(edges)
        if not 0 < len(edges) <= MOST_COLUMNS:
            raise ValueError(f"expected edges of 1 to {MOST_COLUMNS} columns, not of {len(edges)}")
        self._edges = []
        self._counts = []
        self._columns = <column_t*>calloc(len(edges), sizeof(column_t))
        if self._columns == NULL:
            raise MemoryError
        self._count = len(edges)
        for place, given in enumerate(edges):
            self._place(place, _checked(place, given))
        self._reset()

    def __dealloc__(self):
        free(self._columns)

    cdef _place(self, Py_ssize_t place, given):
        cdef column_t* c = &self._columns[place]
        cdef double[::1] edges
        cdef int64_t[::1] counts
        cdef int32_t[::1] before
        cdef Py_ssize_t last = len(given) - 1
        cdef double low = given[0], high = given[last]
        inner = given.copy()
        inner[last] = nextafter(high, INFINITY)
        # Whatever is compared with what lies behind the last edge is not beyond it.
        padded = np.concatenate([inner, np.full(MOST_IN_CELL, np.nan)])
        held = np.zeros(len(given) + 1, np.int64)
        found = _cells(inner, low, high)
        edges, counts = padded, held
        c.edges, c.counts = &edges[0], &counts[0]
        c.bins = last
        c.low = low
        c.shift = low / 2 + high / 2
        if found is not None:
            scale, c.most, starts = found
            before = starts
            c.scale, c.cells, c.before = scale, len(starts), &before[0]
        self._edges.append((given, padded, found))
        self._counts.append(held)

    cdef _reset(self):
        cdef Py_ssize_t i
        cdef column_t* c
        for i in range(self._count):
            c = &self._columns[i]
            memset(c.counts, 0, (c.bins + 2) * sizeof(int64_t))
            c.total = c.squares = 0
            c.minimum, c.maximum = INFINITY, -INFINITY
            c.missing = c.infinite = 0
        self._rows = 0

    def add(self, table):
        """Count the rows of ``table``, ``[rows, columns]``; ``[rows]`` where there is one column.

        Raises ``ValueError`` where it has another number of columns, ``TypeError`` where it holds
        no integers, booleans, float32 or float64.
        """
        cdef Py_buffer view
        cdef table_t source
        open_table(table, &view, &source)
        try:
            if source.columns != self._count:
                raise ValueError(
                    f"expected a table of {self._count} columns, not of {source.columns}"
                )
            enter(&self._busy)
            try:
                with nogil:
                    count_table(self._columns, &source)
                self._rows += source.rows
            finally:
                self._busy = False
        finally:
            PyBuffer_Release(&view)

    def merge(self, BinCounts other not None):
        """Count what ``other`` has counted too; ``ValueError`` unless it has the same edges."""
        cdef Py_ssize_t i, j
        cdef column_t* mine
        cdef column_t* theirs
        if self._count != other._count or not all(
            np.array_equal(a[0], b[0]) for a, b in zip(self._edges, other._edges)
        ):
            raise ValueError("only counts with the same edges can be merged")
        if self is other:
            other = other.copy()
        enter(&self._busy)
        try:
            enter(&other._busy)
            for i in range(self._count):
                mine, theirs = &self._columns[i], &other._columns[i]
                for j in range(mine.bins + 2):
                    mine.counts[j] += theirs.counts[j]
                mine.total += theirs.total
                mine.squares += theirs.squares
                mine.minimum = min(mine.minimum, theirs.minimum)
                mine.maximum = max(mine.maximum, theirs.maximum)
                mine.missing += theirs.missing
                mine.infinite += theirs.infinite
            self._rows += other._rows
            other._busy = False
        finally:
            self._busy = False

    def clear(self):
        """Forget what was counted."""
        enter(&self._busy)
        self._reset()
        self._busy = False

    def copy(self):
        """Another one with the same edges and counts."""
        cdef BinCounts made = BinCounts([edges for edges, *_ in self._edges])
        made.merge(self)
        return made

    cdef _idle(self):
        """Refuse to be read while a thread counts."""
        enter(&self._busy)
        self._busy = False

    @property
    def columns(self):
        return self._count

    @property
    def rows(self):
        return self._rows

    def edges(self, Py_ssize_t column):
        """The edges of a column, as they were given."""
        return self._edges[column][0]

    def counts(self, Py_ssize_t column):
        """Of a column: below the edges, each bin, above; a new array of ``int64``."""
        self._idle()
        return self._counts[column].copy()

    @property
    def missing(self):
        """NaNs of each column."""
        self._idle()
        return np.array([self._columns[i].missing for i in range(self._count)], np.int64)

    @property
    def infinite(self):
        """Infinities of each column."""
        self._idle()
        return np.array([self._columns[i].infinite for i in range(self._count)], np.int64)

    @property
    def finite(self):
        """Finite numbers of each column: what minimum, maximum, sums, mean and variance are of."""
        return self._rows - self.missing - self.infinite

    @property
    def minimum(self):
        """The least finite number of each column; NaN where there was none."""
        self._idle()
        lows = np.array([self._columns[i].minimum for i in range(self._count)])
        return np.where(lows == INFINITY, NAN, lows)

    @property
    def maximum(self):
        """The greatest finite number of each column; NaN where there was none."""
        self._idle()
        highs = np.array([self._columns[i].maximum for i in range(self._count)])
        return np.where(highs == -INFINITY, NAN, highs)

    @property
    def mean(self):
        """The mean of the finite numbers of each column; NaN where there was none."""
        shift, total, _ = self._sums()
        with np.errstate(divide="ignore", invalid="ignore"):
            return shift + total / self.finite

    @property
    def variance(self):
        """Their variance, about the mean and divided by their number; NaN where there was none."""
        _, total, squares = self._sums()
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.maximum(squares / self.finite - (total / self.finite) ** 2, 0)

    @property
    def sum(self):
        """The sum of the finite numbers of each column."""
        shift, total, _ = self._sums()
        return total + shift * self.finite

    @property
    def sum_of_squares(self):
        """The sum of their squares."""
        shift, total, squares = self._sums()
        with np.errstate(over="ignore", invalid="ignore"):
            return squares + 2 * shift * total + shift * shift * self.finite

    cdef tuple _sums(self):
        self._idle()
        table = np.array(
            [
                (self._columns[i].shift, self._columns[i].total, self._columns[i].squares)
                for i in range(self._count)
            ]
        )
        return table[:, 0], table[:, 1], table[:, 2]

    def to_bytes(self):
        """All of it as bytes; ``from_bytes`` reads them."""
        cdef column_t* c
        self._idle()
        parts = [int(self._count), int(self._rows)]
        for i in range(self._count):
            c = &self._columns[i]
            parts += [int(c.bins), self._edges[i][0], self._counts[i]]
            parts += [int(c.missing), int(c.infinite)]
            parts.append(np.array([c.total, c.squares, c.minimum, c.maximum]))
        return pack(_KIND, _VERSION, *parts)

    @staticmethod
    def from_bytes(data):
        """What ``to_bytes`` gave; ``ValueError`` where it is not that."""
        reader = Reader(data, _KIND, _VERSION)
        count, rows = reader.integer(1, MOST_COLUMNS), reader.integer(0, 1 << 62)
        found = []
        for _ in range(count):
            bins = reader.integer(1, MOST_BINS)
            edges, counts = reader.numbers(bins + 1), reader.integers(bins + 2)
            missing, infinite = reader.integer(0, rows), reader.integer(0, rows)
            found.append((edges, counts, missing, infinite, reader.numbers(4)))
        reader.end()
        cdef BinCounts made = BinCounts([column[0] for column in found])
        made._rows = rows
        for i, column in enumerate(found):
            made._restore(i, column, reader)
        return made

    cdef _restore(self, Py_ssize_t place, column, reader):
        cdef column_t* c = &self._columns[place]
        _, counts, missing, infinite, sums = column
        counted = sum(counts.tolist())
        finite = counted - infinite
        total, squares, low, high = sums.tolist()
        reader.check(counted + missing == self._rows, "its counts do not add up to its rows")
        outside = int(counts[0]) + int(counts[c.bins + 1])
        reader.check(infinite <= outside, "it has more infinities than are outside")
        if finite:
            reader.check(isfinite(low) and isfinite(high) and low <= high, "its range is none")
        else:
            reader.check(low == INFINITY and high == -INFINITY, "it has a range of nothing")
        reader.check(not (squares < 0 or (squares != squares)), "its sum of squares is none")
        reader.check(total == total or squares == INFINITY, "its sum is no number")
        self._counts[place][:] = counts
        c.missing, c.infinite = missing, infinite
        c.total, c.squares, c.minimum, c.maximum = total, squares, low, high


def _cells(edges, low, high):
    """The scale of cells over ``edges``, how many edges one has at most, and how many are before.

    ``None`` where too many edges lie in one cell.
    """
    best = None
    cells = len(edges)
    while cells <= max(LEAST_CELLS, 4 * len(edges)):
        with np.errstate(over="ignore", divide="ignore"):
            scale = cells / (np.float64(high) - np.float64(low))
        if not (np.isfinite(scale) and scale > 0 and np.isfinite(high - low)):
            return None
        with np.errstate(over="ignore"):
            at = np.clip((edges - low) * scale, 0, cells - 1).astype(np.int64)
        held = np.bincount(at, minlength=cells)
        if best is None or held.max() < best[1]:
            before = np.concatenate([[0], np.cumsum(held)])[:cells].astype(np.int32)
            best = (float(scale), int(held.max()), before)
        cells *= 2
    return best if best[1] <= MOST_IN_CELL else None


def _checked(place, given):
    """``given`` as an array of edges; ``ValueError`` where it is none."""
    edges = np.array(given, np.float64)
    if edges.ndim != 1 or not 2 <= edges.size <= MOST_BINS + 1:
        raise ValueError(
            f"column {place}: expected 2 to {MOST_BINS + 1} edges, not an array of shape {edges.shape}"
        )
    if not np.isfinite(edges).all() or not (np.diff(edges) > 0).all():
        raise ValueError(f"column {place}: expected finite, ascending edges, none of them twice")
    return edges
