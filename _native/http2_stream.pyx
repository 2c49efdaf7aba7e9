"""One stream of an HTTP/2 connection: its state, its windows, and what waits to be sent on it.

A stream is plain data. ``Http2Sender`` and ``Http2Connection`` act on it; the layer above makes a
subclass of it to keep its own state there.
"""


cdef class Http2Stream:
    """A stream that the peer has opened.

    Attributes:
        id: the stream's number.
        remote_closed, local_closed: whether the peer has, and we have, ended the side.
        gone: whether it was ended or reset; nothing that is sent on it goes out any more.
        waiting_bytes: bytes of DATA that wait for the peer's windows.
    """
