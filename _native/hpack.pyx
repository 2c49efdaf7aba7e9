"""HPACK, RFC 7541: header fields to and from blocks of bytes.

A ``Decoder`` reads the header blocks of one direction of a connection, an ``Encoder`` writes those
of the other; each keeps a dynamic table that follows its peer's. They know bytes and nothing of
HTTP: whether a name may stand in a request is for others to say. Nothing here is thread-safe.

Where the RFC leaves a limit to us, 5.1: an integer is at most 2**31 - 1, and has at most five
octets after its prefix, zeros included. Where a block has more than two updates of the table's
size, one more than 4.2 has a use for, it is refused.
"""

from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from gateway._native.hpack_table cimport Field, Table, field_size, make_field
from gateway._native.huffman cimport decode_huffman, huffman_size, put_huffman

from gateway._native import hpack_table
from gateway._native.huffman import HpackError

# What is cimported is no name of the module's for Python, which is to find the whole of HPACK here.
globals().update(Field=hpack_table.Field, Table=hpack_table.Table)

cdef enum:
    # SETTINGS_HEADER_TABLE_SIZE until a peer says otherwise, RFC 9113 6.5.2.
    INITIAL_TABLE_SIZE = 4096
    MOST_UPDATES = 2
    MOST_CONTINUATION = 5
    # Octets of any integer that a Py_ssize_t holds.
    MOST_INTEGER = 10

cdef uint64_t LARGEST_INTEGER = 0x7FFFFFFF

# How a field is written, as its first octet's pattern.
cdef enum Representation:
    PLAIN = 0x00
    NEVER = 0x10
    UPDATE = 0x20
    INDEX = 0x40
    INDEXED = 0x80

cdef dict INDEXINGS = {"index": INDEX, "plain": PLAIN, "never": NEVER}


cdef int fail(Block* block, const uint8_t* at, str expected) except -1:
    raise HpackError(at - block.start, expected)


cdef inline Py_ssize_t read_integer(Block* block, int prefix) except -1:
    """An integer, 5.1, whose first ``prefix`` bits are the last of the octet at the position."""
    cdef uint8_t largest = (1 << prefix) - 1
    cdef uint8_t first
    if block.position >= block.end:
        fail(block, block.position, "expected an integer, found the block's end")
    first = block.position[0] & largest
    if first < largest:
        block.position += 1
        return first
    return read_long_integer(block, largest)


cdef Py_ssize_t read_long_integer(Block* block, uint64_t value) except -1:
    cdef const uint8_t* at = block.position
    cdef int index
    for index in range(MOST_CONTINUATION):
        at += 1
        if at >= block.end:
            fail(block, at, "expected an integer's next octet, found the block's end")
        value += <uint64_t>(at[0] & 0x7F) << (7 * index)
        if at[0] < 0x80:
            if value > LARGEST_INTEGER:
                fail(block, block.position, f"expected an integer up to 2**31 - 1, found {value}")
            block.position = at + 1
            return <Py_ssize_t>value
    fail(
        block,
        block.position,
        f"expected an integer of at most {MOST_CONTINUATION} octets after its prefix, found more",
    )


cdef bytes read_string(Block* block):
    """A string literal, 5.2."""
    cdef const uint8_t* start = block.position
    cdef bint huffman
    cdef Py_ssize_t size
    if start >= block.end:
        fail(block, start, "expected a string, found the block's end")
    huffman = start[0] & 0x80
    size = read_integer(block, 7)
    if size > block.end - block.position:
        fail(
            block,
            start,
            f"expected a string of at most the {block.end - block.position} octets left in the "
            f"block, found a length of {size}",
        )
    start = block.position
    block.position += size
    if huffman:
        return decode_huffman(start, size, start - block.start)
    return PyBytes_FromStringAndSize(<const char*>start, size)


cdef class Decoder:
    """Reads the header blocks that one peer sends, in their order.

    Args:
        max_table_size: the SETTINGS_HEADER_TABLE_SIZE that the peer encodes by. The dynamic table
            has this size from the start, so unless it is 4096, the protocol's initial value, the
            peer must know it before its first block.
        max_list_size: how much of a block's list of fields is kept, each counted as its name, its
            value and 32 octets, as SETTINGS_MAX_HEADER_LIST_SIZE does.

    The announced size never changes afterwards: an acknowledged reduction would have to be
    answered by an update at the start of the next block, 4.2, and nobody here waits for one.

    After an ``HpackError`` the tables of both ends no longer agree, and the connection is over.

    Raises:
        ValueError: a negative size.
    """

    def __cinit__(self, Py_ssize_t max_table_size=INITIAL_TABLE_SIZE, Py_ssize_t max_list_size=65536):
        if max_list_size < 0:
            raise ValueError(f"max_list_size must not be negative, not {max_list_size}")
        self.table = Table(max_table_size)
        self.allowed_size = max_table_size
        self.max_list_size = max_list_size

    def decode(self, bytes block not None):
        """The fields of one whole header block, as ``decode_block`` reads them."""
        return self.decode_block(
            <const uint8_t*>PyBytes_AS_STRING(block), PyBytes_GET_SIZE(block)
        )

    cdef list decode_block(self, const uint8_t* block, Py_ssize_t size):
        """The fields of one whole header block.

        A list larger than ``max_list_size`` ends with the last field that fits; the rest is read
        for the table's sake, and ``too_large`` says so until the next block. An index copies
        nothing, so what a block's fields take is in proportion to the block, not to the list.

        Raises ``HpackError`` for a block that does not decode.
        """
        cdef Block rest
        cdef Field field
        cdef list fields = []
        cdef uint64_t list_size = 0
        rest.start = block
        rest.position = block
        rest.end = block + size
        self.too_large = False
        self.read_updates(&rest)
        while rest.position < rest.end:
            field = self.read_field(&rest)
            list_size += field_size(field)
            if list_size <= <uint64_t>self.max_list_size:
                fields.append(field)
            else:
                self.too_large = True
        return fields

    cdef int read_updates(self, Block* block) except -1:
        """The updates of the table's size at a block's start, 6.3."""
        cdef const uint8_t* start
        cdef Py_ssize_t size
        cdef int updates = 0
        while block.position < block.end and block.position[0] & 0xE0 == UPDATE:
            start = block.position
            if updates == MOST_UPDATES:
                fail(block, start, "expected a field after two updates of the table's size, "
                     "found another update")
            size = read_integer(block, 5)
            if size > self.allowed_size:
                fail(block, start, f"expected a table size of at most {self.allowed_size}, "
                     f"found an update to {size}")
            self.table.resize(size)
            updates += 1
        return 0

    cdef inline Field read_field(self, Block* block):
        cdef uint8_t first = block.position[0]
        cdef Field field
        if first & INDEXED:
            return self.read_indexed(block, 7)
        if first & INDEX:
            field = self.read_literal(block, 6, False)
            self.table.insert(field)
            return field
        if first & UPDATE:
            fail(block, block.position, "expected a field, found an update of the table's size, "
                 "which stands only at a block's start")
        return self.read_literal(block, 4, first & NEVER != 0)

    cdef inline Field read_indexed(self, Block* block, int prefix):
        """The field of either table whose index is at the position."""
        cdef const uint8_t* start = block.position
        cdef Py_ssize_t index = read_integer(block, prefix)
        cdef Field field = self.table.field_at(index)
        if field is None:
            fail(block, start, f"expected an index in 1..{self.table.last_index()}, found {index}")
        return field

    cdef Field read_literal(self, Block* block, int prefix, bint never_indexed):
        """A field with its own value, 6.2, and its own name unless it has one's index."""
        cdef bytes name
        cdef bytes value
        if block.position[0] & ((1 << prefix) - 1):
            name = self.read_indexed(block, prefix).name
        else:
            block.position += 1
            name = read_string(block)
        value = read_string(block)
        return make_field(name, value, never_indexed)


cdef inline uint8_t* put_integer(
    uint8_t* out, uint8_t pattern, int prefix, Py_ssize_t value
) noexcept:
    cdef Py_ssize_t largest = (1 << prefix) - 1
    if value < largest:
        out[0] = pattern | <uint8_t>value
        return out + 1
    out[0] = pattern | <uint8_t>largest
    out += 1
    value -= largest
    while value >= 0x80:
        out[0] = <uint8_t>(value & 0x7F | 0x80)
        value >>= 7
        out += 1
    out[0] = <uint8_t>value
    return out + 1


cdef uint8_t* put_string(uint8_t* out, bytes text) noexcept:
    """Write a string literal, as Huffman codes where these are shorter."""
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(text)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
    cdef Py_ssize_t shorter = huffman_size(data, size)
    if shorter < size:
        out = put_integer(out, 0x80, 7, shorter)
        return put_huffman(out, data, size)
    out = put_integer(out, 0x00, 7, size)
    memcpy(out, data, size)
    return out + size


cdef tuple read_request(object item):
    """``(Field, Representation)`` of what a caller wants encoded."""
    if isinstance(item, Field):
        if (<Field>item).name is not None:
            return item, NEVER if (<Field>item).never_indexed else PLAIN
    elif (
        isinstance(item, tuple)
        and 2 <= len(item) <= 3
        and PyBytes_CheckExact(item[0])
        and PyBytes_CheckExact(item[1])
    ):
        indexing = item[2] if len(item) == 3 else "plain"
        if indexing not in INDEXINGS:
            raise ValueError(f"indexing must be one of {sorted(INDEXINGS)}, not {indexing!r}")
        return make_field(item[0], item[1], indexing == "never"), INDEXINGS[indexing]
    raise TypeError(
        f"expected a Field or a tuple (name, value[, indexing]) of bytes, found {item!r}"
    )


cdef class Encoder:
    """Writes the header blocks that one peer reads, in their order.

    Args:
        max_table_size: the most that the dynamic table may take, whatever the peer offers.

    A field that the tables hold is written as its index, and a name that they hold as the name's;
    strings are Huffman coded where that is shorter.

    A block that came out as indexes alone may be sent again, as it is, for as long as
    ``table.generation`` stays and ``settled`` is true.
    """

    def __cinit__(self, Py_ssize_t max_table_size=INITIAL_TABLE_SIZE):
        self.table = Table(min(max_table_size, INITIAL_TABLE_SIZE), searched=True)
        self.max_table_size = max_table_size
        self.pending_size = self.table.max_size
        self.settled = self.pending_size == INITIAL_TABLE_SIZE

    def resize(self, Py_ssize_t size):
        """Follow the peer's SETTINGS_HEADER_TABLE_SIZE, as far as ``max_table_size``.

        The next block starts by saying so, 4.2: with the smallest size since the last block where
        the size has risen again, and with the last.

        Raises:
            ValueError: a negative size.
        """
        if size < 0:
            raise ValueError(f"a table's size must not be negative, not {size}")
        size = min(size, self.max_table_size)
        if size == self.table.max_size:
            return
        self.pending_size = size if self.settled else min(size, self.pending_size)
        self.settled = False
        self.table.resize(size)

    cpdef bytes encode(self, fields):
        """One whole header block.

        Args:
            fields: each a ``Field`` or a tuple ``(name, value[, indexing])`` of bytes. ``indexing``
                is ``"index"`` for a field that is to be put into the table, if it fits there, so
                that it costs an octet the next time; ``"plain"``, the default, for one that leaves
                the table alone; ``"never"`` for one that no intermediary may put into a table
                either, 7.1.3, as is a ``Field`` that came with that wish.

        Raises:
            TypeError, ValueError: something else among the fields; nothing has changed.
        """
        cdef list requests = []
        cdef Py_ssize_t most = MOST_UPDATES * MOST_INTEGER
        cdef Field field
        cdef bytes room
        cdef uint8_t* start
        cdef uint8_t* out
        # All of them are looked at first: what is put into the table has to be sent.
        for item in fields:
            request = read_request(item)
            requests.append(request)
            field = request[0]
            most += field_size(field)
        room = PyBytes_FromStringAndSize(NULL, most)
        start = <uint8_t*>PyBytes_AS_STRING(room)
        out = self.put_updates(start)
        for field, indexing in requests:
            out = self.put_field(out, field, indexing)
        return PyBytes_FromStringAndSize(<const char*>start, out - start)

    cdef uint8_t* put_updates(self, uint8_t* out) noexcept:
        if not self.settled:
            if self.pending_size < self.table.max_size:
                out = put_integer(out, UPDATE, 5, self.pending_size)
            out = put_integer(out, UPDATE, 5, self.table.max_size)
            self.settled = True
        return out

    cdef uint8_t* put_field(self, uint8_t* out, Field field, int indexing) except NULL:
        """Write a field, in at most its size: two strings and three integers take no more."""
        cdef Py_ssize_t index
        if indexing != NEVER:
            index = self.table.index_of((field.name, field.value))
            if index:
                return put_integer(out, INDEXED, 7, index)
            # One that is too large would empty the table for nothing.
            if indexing == INDEX and field_size(field) > self.table.max_size:
                indexing = PLAIN
        index = self.table.index_of(field.name)
        out = put_integer(out, indexing, 6 if indexing == INDEX else 4, index)
        if not index:
            out = put_string(out, field.name)
        out = put_string(out, field.value)
        if indexing == INDEX:
            self.table.insert(field)
        return out
