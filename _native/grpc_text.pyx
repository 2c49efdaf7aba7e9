"""What gRPC writes as text into HTTP/2's fields: timeouts, and messages for people.

Both as in the document "gRPC over HTTP2" of the gRPC project.
"""

import re
from urllib.parse import quote

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t

cdef enum:
    MOST_DIGITS = 8

# What arithmetic on the clock may add without a thought: 146 years.
cdef int64_t LONGEST_NS = 1LL << 62

_PRINTABLE = re.compile(rb"[ -$&-~]*")
# Printable ASCII that ``quote`` would escape though nobody has to; blanks at the ends must be.
_SAFE = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}"


cdef int64_t timeout_ns(bytes text) except -2:
    """Nanoseconds that a ``grpc-timeout`` says; -1 for one that says nothing."""
    cdef const char* at = PyBytes_AS_STRING(text)
    cdef Py_ssize_t digits = PyBytes_GET_SIZE(text) - 1
    cdef Py_ssize_t index
    cdef int64_t value = 0
    cdef int64_t unit
    cdef char name
    if not 1 <= digits <= MOST_DIGITS:
        return -1
    for index in range(digits):
        if not c"0" <= at[index] <= c"9":
            return -1
        value = 10 * value + (at[index] - c"0")
    name = at[digits]
    if name == c"n":
        unit = 1
    elif name == c"u":
        unit = 1000
    elif name == c"m":
        unit = 1000000
    elif name == c"S":
        unit = 1000000000
    elif name == c"M":
        unit = 60000000000
    elif name == c"H":
        unit = 3600000000000
    else:
        return -1
    return value * unit if value < LONGEST_NS // unit else LONGEST_NS


def parse_timeout(bytes text not None):
    """Nanoseconds of a ``grpc-timeout``: up to eight digits and one of ``HMSmun``.

    At most 2^62. Raises ``ValueError`` for anything else.
    """
    cdef int64_t ns = timeout_ns(text)
    if ns < 0:
        raise ValueError(
            f"a grpc-timeout is one to eight digits and a unit of H, M, S, m, u or n; got {text!r}"
        )
    return ns


cpdef bytes percent_encode(str text):
    """``text`` as a ``grpc-message``: UTF-8, in which all but printable ASCII is ``%XX``."""
    cdef bytes plain = text.encode("utf-8", "replace")
    # A blank at an end would make a field that HTTP/2 calls malformed.
    if _PRINTABLE.fullmatch(plain) and plain.strip(b" ") == plain:
        return plain
    return quote(plain, safe=_SAFE).encode()
