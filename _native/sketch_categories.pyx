"""Counts categories: those that are known, new ones in bounded memory, and what is missing."""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

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

_KIND = b"cats"
_VERSION = 1

#: Most known categories, and most new ones that are counted by name.
MOST_KNOWN = 1 << 16
MOST_NEW = 1 << 12

cdef enum:
    # Bytes of a new text that are kept; its hash and its length tell it from others like it.
    SHOWN = 128

cdef struct category_t:
    uint64_t hashed
    char* data
    # Bytes of the whole text; of a new one only the first SHOWN lie at data.
    Py_ssize_t size
    int64_t count


cdef inline Py_ssize_t kept(Py_ssize_t size) noexcept nogil:
    return size if size < SHOWN else SHOWN


cdef class CategoryCounts:
    """Counts how often each of a few known categories came, numbers or texts.

    Whatever is not known is *new*: how many of those came is exact, and the first ``most_new``
    different ones are counted by name. Numbers are compared as float64; a NaN is missing, as are
    ``None`` and the empty text.

    Used by one thread at a time; loops run without the GIL.

    Attributes:
        known: the known categories, in the order of ``counts``.
        text: whether categories are texts.
        new: how many values were no known category.
        unlisted: how many of those have no name, because there were too many different ones.
        missing: values that were none.
    """

    cdef readonly tuple known
    cdef readonly bint text
    cdef category_t* _categories
    cdef int32_t* _index
    cdef char* _names
    cdef uint64_t _mask
    cdef Py_ssize_t _known
    cdef Py_ssize_t _held
    cdef Py_ssize_t _most
    cdef readonly int64_t missing
    cdef readonly int64_t new
    cdef readonly int64_t unlisted
    cdef bint _busy

    def __cinit__(self, known, *, bint text, Py_ssize_t most_new=64):
        cdef Py_ssize_t size, at = 0, places = 16
        cdef bytes key
        cdef category_t* c
        cdef uint64_t slot
        self.text = text
        self.known = tuple([_known(value, text) for value in known])
        self._known = len(self.known)
        if self._known > MOST_KNOWN or not 0 <= most_new <= MOST_NEW:
            raise ValueError(
                f"expected at most {MOST_KNOWN} known categories and 0 to {MOST_NEW} new ones, "
                f"not {self._known} and {most_new}"
            )
        keys = [_key(value, text) for value in self.known]
        self._most = self._known + most_new
        while places < 2 * self._most + 2:
            places *= 2
        self._mask = places - 1
        size = sum([len(key) for key in keys]) + most_new * SHOWN + 1
        self._categories = <category_t*>calloc(self._most + 1, sizeof(category_t))
        self._index = <int32_t*>malloc(places * sizeof(int32_t))
        self._names = <char*>malloc(size)
        if self._categories == NULL or self._index == NULL or self._names == NULL:
            raise MemoryError
        for slot in range(<uint64_t>places):
            self._index[slot] = -1
        for value, key in zip(self.known, keys):
            c = &self._categories[self._held]
            c.data, c.size = self._names + at, len(key)
            c.hashed = hash_number(value) if not text else hash_bytes(key, len(key))
            memcpy(c.data, <const char*>key, len(key))
            at += len(key)
            slot = self._find(c.hashed, c.data, c.size)
            if self._index[slot] >= 0:
                raise ValueError(f"expected each category once; {value!r} is there twice")
            self._index[slot] = <int32_t>self._held
            self._held += 1
        for size in range(self._known, self._most):
            self._categories[size].data = self._names + at
            at += SHOWN

    def __dealloc__(self):
        free(self._categories)
        free(self._index)
        free(self._names)

    cdef uint64_t _find(self, uint64_t hashed, const char* data, Py_ssize_t size) noexcept nogil:
        """The slot of the index that holds the category, or that is free for it."""
        cdef uint64_t slot = hashed & self._mask
        cdef const category_t* c
        cdef Py_ssize_t same
        while self._index[slot] >= 0:
            c = &self._categories[self._index[slot]]
            if c.hashed == hashed and c.size == size:
                same = size if self._index[slot] < self._known else kept(size)
                if memcmp(c.data, data, same) == 0:
                    break
            slot = (slot + 1) & self._mask
        return slot

    cdef void _count(
        self, uint64_t hashed, const char* data, Py_ssize_t size, int64_t count
    ) noexcept nogil:
        cdef uint64_t slot = self._find(hashed, data, size)
        cdef int32_t at = self._index[slot]
        cdef category_t* c
        if at >= 0:
            self._categories[at].count += count
            if at >= self._known:
                self.new += count
            return
        self.new += count
        if self._held == self._most:
            self.unlisted += count
            return
        c = &self._categories[self._held]
        c.hashed, c.size, c.count = hashed, size, count
        memcpy(c.data, data, kept(size))
        self._index[slot] = <int32_t>self._held
        self._held += 1

    cdef void _count_numbers(self, const table_t* table) noexcept nogil:
        cdef double values[TILE]
        cdef double value
        cdef Py_ssize_t row = 0, count, i
        while row < table.rows:
            count = min(<Py_ssize_t>TILE, table.rows - row)
            gather(table.kind, table.data + row * table.row_stride, table.row_stride, count, values)
            for i in range(count):
                if values[i] != values[i]:
                    self.missing += 1
                    continue
                value = values[i] + 0.0
                self._count(hash_number(value), <const char*>&value, sizeof(value), 1)
            row += count

    def add(self, values):
        """Count numbers of shape ``[n]`` or ``[n, 1]``.

        Raises ``TypeError`` where categories are texts, or for what holds no integers, booleans,
        float32 or float64, and ``ValueError`` for another shape.
        """
        cdef Py_buffer view
        cdef table_t source
        if self.text:
            raise TypeError("these categories are texts: use add_texts")
        open_table(values, &view, &source)
        try:
            if source.columns != 1:
                raise ValueError(f"expected one column of numbers, not {source.columns}")
            enter(&self._busy)
            try:
                with nogil:
                    self._count_numbers(&source)
            finally:
                self._busy = False
        finally:
            PyBuffer_Release(&view)

    def add_texts(self, texts):
        """Count the elements of a list, or an array of objects: ``str``, ``bytes`` or ``None``.

        Raises ``TypeError`` where categories are numbers, or for an element of another type; those
        before it are counted by then, in pieces of 256.
        """
        cdef list values
        cdef text_t found[TILE]
        cdef Py_ssize_t at = 0, count, i
        if not self.text:
            raise TypeError("these categories are numbers: use add")
        # A private list holds the elements, whatever others do with theirs.
        values = list(texts) if isinstance(texts, list) else texts.ravel().tolist()
        enter(&self._busy)
        try:
            while at < len(values):
                count = read_texts(values, at, found)
                with nogil:
                    for i in range(count):
                        if found[i].size == 0:
                            self.missing += 1
                        else:
                            self._count(
                                hash_bytes(found[i].data, found[i].size),
                                found[i].data,
                                found[i].size,
                                1,
                            )
                at += count
        finally:
            self._busy = False

    def merge(self, CategoryCounts other not None):
        """Count what ``other`` has counted; ``ValueError`` where its known categories differ.

        Where there are more new ones than fit, those of this object stay and the first of
        ``other`` join them.
        """
        cdef Py_ssize_t i
        cdef category_t* c
        if self.known != other.known or self.text != other.text:
            raise ValueError("only counts of the same known categories can be merged")
        if other is self:
            other = CategoryCounts.from_bytes(self.to_bytes())
        enter(&self._busy)
        try:
            enter(&other._busy)
            for i in range(other._held):
                c = &other._categories[i]
                if i < self._known:
                    self._categories[i].count += c.count
                else:
                    self._count(c.hashed, c.data, c.size, c.count)
            self.new += other.unlisted
            self.unlisted += other.unlisted
            self.missing += other.missing
            other._busy = False
        finally:
            self._busy = False

    def clear(self):
        """Forget what was counted."""
        cdef Py_ssize_t i
        cdef uint64_t slot
        enter(&self._busy)
        for i in range(self._held):
            self._categories[i].count = 0
        for slot in range(self._mask + 1):
            if self._index[slot] >= self._known:
                self._index[slot] = -1
        self._held = self._known
        self.missing = self.new = self.unlisted = 0
        self._busy = False
        # Known ones may have been put behind new ones that are gone, so each finds a place anew.
        self._reindex()

    cdef _reindex(self):
        cdef Py_ssize_t i
        cdef uint64_t slot
        cdef category_t* c
        for slot in range(self._mask + 1):
            self._index[slot] = -1
        for i in range(self._held):
            c = &self._categories[i]
            self._index[self._find(c.hashed, c.data, c.size)] = <int32_t>i

    @property
    def counts(self):
        """How often each known category came; a new array of ``int64``."""
        enter(&self._busy)
        self._busy = False
        return np.array([self._categories[i].count for i in range(self._known)], np.int64)

    @property
    def total(self):
        """All values that were not missing."""
        return int(self.counts.sum()) + self.new

    def new_categories(self):
        """Pairs of a new category and its count, the most frequent first.

        A count is exact unless some are ``unlisted``; then it is exact or too small. A long text
        is cut.
        """
        cdef category_t* c
        cdef double value
        enter(&self._busy)
        try:
            found = []
            for i in range(self._known, self._held):
                c = &self._categories[i]
                if self.text:
                    name = c.data[: kept(c.size)].decode("utf-8", "replace")
                else:
                    memcpy(&value, c.data, sizeof(value))
                    name = value
                found.append((name, c.count))
        finally:
            self._busy = False
        return sorted(found, key=lambda pair: -pair[1])

    def to_bytes(self):
        """All of it as bytes; ``from_bytes`` reads them."""
        cdef category_t* c
        enter(&self._busy)
        try:
            parts = [int(self.text), self._known, self._most - self._known]
            for value in self.known:
                key = _key(value, self.text)
                parts += [len(key), key]
            parts += [self._categories[i].count for i in range(self._known)]
            parts += [self._held - self._known]
            for i in range(self._known, self._held):
                c = &self._categories[i]
                parts += [np.array([c.hashed], np.uint64), c.size, c.data[: kept(c.size)], c.count]
            parts += [self.missing, self.new, self.unlisted]
        finally:
            self._busy = False
        return pack(_KIND, _VERSION, *parts)

    @staticmethod
    def from_bytes(data):
        """What ``to_bytes`` gave; ``ValueError`` where it is not that."""
        reader = Reader(data, _KIND, _VERSION)
        text = bool(reader.integer(0, 1))
        known, most_new = reader.integer(0, MOST_KNOWN), reader.integer(0, MOST_NEW)
        values = [
            _value(reader.raw(reader.integer(0, 1 << 30)), text, reader) for _ in range(known)
        ]
        cdef CategoryCounts made
        try:
            made = CategoryCounts(values, text=text, most_new=most_new)
        except ValueError as error:
            raise reader.wrong(str(error)) from None
        made._read(reader)
        return made

    cdef _read(self, reader):
        cdef uint64_t hashed
        cdef bytes key
        cdef double value
        cdef Py_ssize_t size
        # More than any stream has, and few enough that sums do not overflow.
        most = 1 << 48
        for i in range(self._known):
            self._categories[i].count = reader.integer(0, most)
        for _ in range(reader.integer(0, self._most - self._known)):
            hashed, size = reader.words(1)[0], reader.integer(1, most)
            key = reader.raw(kept(size))
            count = reader.integer(1, most)
            if not self.text:
                reader.check(size == sizeof(value), "a number has not the size of one")
                memcpy(&value, <const char*>key, sizeof(value))
                reader.check(value == value and hash_number(value) == hashed, "a hash is wrong")
            elif size <= SHOWN:
                reader.check(hash_bytes(key, size) == hashed, "a hash is wrong")
            at = self._held
            self._count(hashed, key, size, count)
            reader.check(self._held == at + 1, "a new category is there twice or known")
        missing, new, unlisted = [reader.integer(0, most) for _ in range(3)]
        reader.check(new == self.new + unlisted, "its new categories do not add up")
        self.missing, self.new, self.unlisted = missing, new, unlisted
        reader.end()


def _known(value, text):
    """A known category as it is shown; ``TypeError`` or ``ValueError`` where it cannot be one."""
    if text:
        if isinstance(value, bytes):
            value = value.decode("utf-8", "surrogateescape")
        if not isinstance(value, str):
            raise TypeError(f"expected a category to be a text, not {value!r}")
        if not value:
            raise ValueError("the empty text is what is missing, and no category")
        return value
    value = float(value) + 0.0
    if value != value:
        raise ValueError("a NaN is what is missing, and no category")
    return value


def _key(value, text):
    return value.encode("utf-8", "surrogateescape") if text else np.float64(value).tobytes()


def _value(key, text, reader):
    if text:
        return key.decode("utf-8", "surrogateescape")
    reader.check(len(key) == 8, "a number has not the size of one")
    return float(np.frombuffer(key, np.float64)[0])
