"""The Huffman code of HPACK, RFC 7541 5.2 and Appendix B.

Decoding is a state machine that takes four bits at a time. A state is a node of the code's tree,
the place that the bits since the last whole code lead to; there are 256, as there are 257 symbols.
The shortest code has five bits, so four of them complete at most one symbol, and a step is a next
state and perhaps an octet. The table of steps, 16 KiB, is derived at import from the lengths of
the codes.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    EOS = 256
    EOS_BITS = 30
    STATES = 256
    # Where EOS leads to, and nothing leads from.
    ENDED = STATES

# Which symbols have a code of how many bits. The code is canonical: taken in this order each code
# is its predecessor's successor, with zeros added where codes get longer, so the lengths say all.
# The end-of-string symbol is no octet; it follows as the fourth code of 30 bits.
cdef dict SYMBOLS = {
    5: b"012aceiost",
    6: b" %-./3456789=A_bdfghlmnpru",
    7: b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: b"&*,;XZ",
    10: b'!"()?',
    11: b"'+|",
    12: b"#>",
    13: b"\x00$@[]~",
    14: b"^}",
    15: b"<`{",
    19: b"\\\xc3\xd0",
    20: b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2",
    21: b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6",
    22: b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa"
    b"\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9",
    23: b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d"
    b"\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef",
    24: b"\t\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed",
    25: b"\xc7\xcf\xea\xeb",
    26: b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff",
    27: b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe",
    28: b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13"
    b"\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9",
    30: b"\n\r\x16",
}

cdef struct Step:
    uint16_t next
    uint8_t emits       # 1 where ``symbol`` is complete, else 0
    uint8_t symbol

cdef Step[STATES + 1][16] steps
# What may be left of a string once its last symbol is complete: up to seven ones.
cdef uint8_t[STATES] is_padding
# How many bits lead to a state.
cdef uint8_t[STATES] depths
cdef uint32_t[STATES] codes
cdef uint8_t[STATES] lengths


class HpackError(ValueError):
    """A header block does not decode; for HTTP/2 a connection error, COMPRESSION_ERROR.

    Attributes:
        offset: where, in bytes from the start of the block.
        expected: what should have stood there, and what did.
    """

    def __init__(self, offset, expected):
        super().__init__(f"at byte {offset}: {expected}")
        self.offset = offset
        self.expected = expected


cdef list assign_codes():
    """All ``(symbol, code, bits)`` in the order of the codes; EOS comes last."""
    cdef list assigned = []
    cdef int code = 0
    cdef int bits = 0
    for longer, symbols in SYMBOLS.items():
        code <<= <int>longer - bits
        bits = longer
        for symbol in symbols:
            assigned.append((symbol, code, bits))
            code += 1
    if bits != EOS_BITS or code != (1 << EOS_BITS) - 1:
        raise AssertionError(f"expected the codes to leave 30 ones for EOS, found {code:b}")
    assigned.append((EOS, code, bits))
    return assigned


cdef list grow_tree(list assigned):
    """The tree's nodes, each ``[after 0, after 1]``: a node's number, or ``~symbol`` at a leaf."""
    cdef list nodes = [[None, None]]
    cdef int bit
    for symbol, code, bits in assigned:
        node = nodes[0]
        for position in range(bits - 1, 0, -1):
            bit = code >> position & 1
            if node[bit] is None:
                node[bit] = len(nodes)
                depths[len(nodes)] = bits - position
                is_padding[len(nodes)] = code >> position == (1 << depths[len(nodes)]) - 1
                nodes.append([None, None])
            node = nodes[node[bit]]
        node[code & 1] = ~symbol
    is_padding[0] = True
    for state in range(STATES):
        is_padding[<int>state] &= depths[<int>state] <= 7
    return nodes


cdef int derive() except -1:
    """Fill the tables from the code."""
    cdef list assigned = assign_codes()
    cdef list nodes = grow_tree(assigned)
    cdef int state, nibble, position, symbol
    for symbol, code, bits in assigned[:EOS]:
        codes[symbol] = code
        lengths[symbol] = bits
    for nibble in range(16):
        steps[ENDED][nibble].next = ENDED
        for state in range(STATES):
            at = state
            for position in range(3, -1, -1):
                at = nodes[at][nibble >> position & 1]
                if at == ~EOS:
                    at = ENDED
                    break
                if at < 0:
                    steps[state][nibble].emits = 1
                    steps[state][nibble].symbol = ~at
                    at = 0
            steps[state][nibble].next = at
    return 0


derive()


cdef int refuse_end(const uint8_t* data, Py_ssize_t size, int state, Py_ssize_t offset) except -1:
    """Say what is wrong with a string that ends in ``state``, which is no padding."""
    cdef uint64_t bits = 0
    cdef Py_ssize_t index
    # The longest code has 30 bits, so what is left lies within the last four octets.
    for index in range(max(size - 4, 0), size):
        bits = bits << 8 | data[index]
    bits &= (<uint64_t>1 << depths[state]) - 1
    raise HpackError(
        offset + size,
        "expected a Huffman string's end, after at most 7 bits of padding that are all ones, "
        f"found {bits:0{depths[state]}b} after its last symbol",
    )


cdef bytes decode_huffman(const uint8_t* data, Py_ssize_t size, Py_ssize_t offset):
    """The octets of a Huffman string; errors count from ``offset``, the string's place."""
    # No code is shorter than five bits; the spare octets hold what a step writes and does not emit.
    cdef bytes room = PyBytes_FromStringAndSize(NULL, size // 5 * 8 + 8)
    cdef char* start = PyBytes_AS_STRING(room)
    cdef char* out = start
    cdef Step step
    cdef int state = 0
    cdef Py_ssize_t index
    for index in range(size):
        step = steps[state][data[index] >> 4]
        out[0] = <char>step.symbol
        out += step.emits
        step = steps[step.next][data[index] & 15]
        out[0] = <char>step.symbol
        out += step.emits
        state = step.next
        if state == ENDED:
            raise HpackError(
                offset + index, "expected the code of an octet in a Huffman string, found EOS"
            )
    if not is_padding[state]:
        refuse_end(data, size, state, offset)
    return PyBytes_FromStringAndSize(start, out - start)


cdef Py_ssize_t huffman_size(const uint8_t* data, Py_ssize_t size) noexcept nogil:
    """Octets of the Huffman string of ``data``."""
    cdef Py_ssize_t bits = 0
    cdef Py_ssize_t index
    for index in range(size):
        bits += lengths[data[index]]
    return (bits + 7) >> 3


cdef uint8_t* put_huffman(uint8_t* out, const uint8_t* data, Py_ssize_t size) noexcept nogil:
    """Write the Huffman string of ``data``, of ``huffman_size`` octets; returns its end."""
    # Seven bits at most wait for the next code, of 30 at most.
    cdef uint64_t held = 0
    cdef int bits = 0
    cdef Py_ssize_t index
    for index in range(size):
        held = held << lengths[data[index]] | codes[data[index]]
        bits += lengths[data[index]]
        while bits >= 8:
            bits -= 8
            out[0] = <uint8_t>(held >> bits)
            out += 1
    if bits:
        out[0] = <uint8_t>(held << (8 - bits) | 0xFF >> bits)
        out += 1
    return out


def encode(bytes data not None):
    """The Huffman string of ``data``, padded with ones to whole octets."""
    cdef const uint8_t* octets = <const uint8_t*>PyBytes_AS_STRING(data)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    cdef bytes encoded = PyBytes_FromStringAndSize(NULL, huffman_size(octets, size))
    put_huffman(<uint8_t*>PyBytes_AS_STRING(encoded), octets, size)
    return encoded


def decode(bytes data not None):
    """The octets of the Huffman string ``data``.

    Raises ``HpackError`` where EOS stands in it, or where what follows the last symbol is not
    padding: at most seven bits, all ones.
    """
    return decode_huffman(<const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), 0)
