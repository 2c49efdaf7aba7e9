"""Header fields, and the tables that HPACK keeps of them, RFC 7541 2.3 and 4.

A field that stands in a table is one object for as long as it does: to decode its index is to take
a reference. Those of the static table are shared by all connections of the process.
"""

from cpython.list cimport PyList_GET_ITEM
from libc.stdint cimport uint64_t

cdef enum:
    STATIC_FIELDS = 61
    SMALLEST_RING = 8

# Appendix A; the first stands at index 1.
cdef tuple STATIC_TABLE = (
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
)


cdef class Field:
    """One header field; it unpacks as ``(name, value)``.

    Args:
        name, value: as they travel, in octets.
        never_indexed: whether it has to stay out of every table on its way, 7.1.3.
    """

    def __init__(self, bytes name not None, bytes value not None, bint never_indexed=False):
        self.name = name
        self.value = value
        self.never_indexed = never_indexed

    def __iter__(self):
        return iter((self.name, self.value))

    def __repr__(self):
        return f"Field({self.name!r}, {self.value!r})"


# No field has the index 0.
cdef list static_fields = [None] + [make_field(name, value, False) for name, value in STATIC_TABLE]
# The first index of each name, and the index of each (name, value).
cdef dict static_indexes = {}

for index, (name, value) in enumerate(STATIC_TABLE, 1):
    static_indexes.setdefault(name, index)
    static_indexes[name, value] = index


cdef class Table:
    """A dynamic table, 2.3.2, behind the static one; as a sequence, its own fields, newest first.

    Args:
        max_size: octets that it may hold, each field counted as its own and 32 more.
        searched: whether its owner looks fields up by what they are.

    The fields stand in a ring whose length is a power of two: insertion n at n modulo that. It is
    made at the first insertion, as many connections never come to one.
    """

    def __cinit__(self, Py_ssize_t max_size, bint searched=False):
        if max_size < 0:
            raise ValueError(f"a table's size must not be negative, not {max_size}")
        self.max_size = max_size
        self.insertions = {} if searched else None

    def __len__(self):
        return self.count

    def __getitem__(self, Py_ssize_t index):
        if not 0 <= index < self.count:
            raise IndexError(f"the table has {self.count} fields, asked for {index}")
        return self.entry(index)

    cdef Field field_at(self, Py_ssize_t index):
        """The field of an index, 2.3.3; None where there is none."""
        if 0 < index <= STATIC_FIELDS:
            return <Field>PyList_GET_ITEM(static_fields, index)
        if 0 < index <= STATIC_FIELDS + self.count:
            return self.entry(index - STATIC_FIELDS - 1)
        return None

    cdef Py_ssize_t last_index(self) noexcept:
        return STATIC_FIELDS + self.count

    cdef Py_ssize_t index_of(self, key) except -1:
        """The index of a name or of a (name, value) of a table that is searched; 0 for none."""
        index = static_indexes.get(key)
        if index is not None:
            return index
        insertion = self.insertions.get(key)
        if insertion is None:
            return 0
        return STATIC_FIELDS + <Py_ssize_t>(self.inserted - <uint64_t>insertion)

    cdef int insert(self, Field field) except -1:
        """Make ``field`` the newest, and room for it; one that is too large empties the table."""
        cdef Py_ssize_t size = field_size(field)
        while self.count and self.size + size > self.max_size:
            self.evict()
        if size > self.max_size:
            return 0
        if self.entries is None or self.count == len(<list>self.entries):
            self.grow()
        (<list>self.entries)[self.inserted & (len(<list>self.entries) - 1)] = field
        if self.insertions is not None:
            self.insertions[field.name] = self.inserted
            self.insertions[field.name, field.value] = self.inserted
        self.count += 1
        self.inserted += 1
        self.size += size
        self.generation += 1
        return 0

    cdef int resize(self, Py_ssize_t max_size) except -1:
        """Set ``max_size``, and evict what it leaves no room for."""
        self.max_size = max_size
        while self.size > max_size:
            self.evict()
        return 0

    cdef inline Field entry(self, Py_ssize_t age):
        """The field that came ``age`` insertions before the newest, and is still here."""
        cdef uint64_t mask = len(<list>self.entries) - 1
        return <Field>PyList_GET_ITEM(self.entries, (self.inserted - 1 - age) & mask)

    cdef int evict(self) except -1:
        """Drop the oldest field."""
        cdef Field field = self.entry(self.count - 1)
        cdef uint64_t insertion = self.inserted - self.count
        (<list>self.entries)[insertion & (len(<list>self.entries) - 1)] = None
        if self.insertions is not None:
            # A later insertion may have taken the name over.
            for key in (field.name, (field.name, field.value)):
                if self.insertions[key] == insertion:
                    del self.insertions[key]
        self.count -= 1
        self.size -= field_size(field)
        self.generation += 1
        return 0

    cdef int grow(self) except -1:
        """Double the ring."""
        cdef Py_ssize_t length = SMALLEST_RING if self.entries is None else 2 * self.count
        cdef list larger = [None] * length
        cdef Py_ssize_t age
        for age in range(self.count):
            larger[(self.inserted - 1 - age) & (length - 1)] = self.entry(age)
        self.entries = larger
        return 0
