"""Copying much, at a speed that can be relied on."""

from libc.string cimport memmove

cdef enum:
    # Below it the C library copies with vector instructions, above it with REP MOVSB.
    MOST_AT_ONCE = 2048


cdef inline void copy_bytes(void* to, const void* source, Py_ssize_t size) noexcept nogil:
    """Copy ``size`` bytes between places that do not overlap, at the same speed wherever they are.

    REP MOVSB takes 14 times as long on AMD's Zen 4 where ``to`` lies 1 to 15 bytes further in its
    page than ``source`` does, which is a matter of luck for as long as the same memory is used
    again. Of ``memmove``, unlike ``memcpy``, the compiler makes no such instruction of its own.
    """
    cdef char* out = <char*>to
    cdef const char* at = <const char*>source
    while size > MOST_AT_ONCE:
        memmove(out, at, MOST_AT_ONCE)
        out += MOST_AT_ONCE
        at += MOST_AT_ONCE
        size -= MOST_AT_ONCE
    memmove(out, at, size)
