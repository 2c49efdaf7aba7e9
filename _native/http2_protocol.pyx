"""An HTTP/2 connection as an event loop drives it.

It has the methods of asyncio's buffered protocol, is a client of its transport, and knows no more of
either. (uvloop goes by the methods; asyncio's own loop wants the base class, too.) All connections
of a server receive into one buffer, because what is in it is taken before the next one reads. While
nothing else can come, a large message is received into its own memory instead. What connections
have to say leaves once a turn of the loop, not once a frame.
"""

from cpython.buffer cimport PyBUF_WRITE
from libc.stdint cimport int64_t, uint8_t

from gateway._native.clock cimport monotonic_ns
from gateway._native.http2 cimport Http2Connection

cdef extern from "Python.h":
    object PyMemoryView_FromMemory(char* memory, Py_ssize_t size, int flags)

cdef extern from "<sys/socket.h>" nogil:
    enum:
        SOL_SOCKET
        SO_RCVLOWAT
    int setsockopt(int socket, int level, int option, const void* value, unsigned int size)

cdef enum:
    # From a peer whose frames are large no more is received at a time while it may begin one: what
    # comes behind the frame's head is then received where it stays.
    START_BYTES = 1 << 15

# How long the peer of a connection that has ended may take to read the last of it.
cdef int64_t LINGER_NS = 5_000_000_000
# The longest that a peer which pauses within a large message may keep what it has sent unseen.
cdef double IMPATIENCE_S = 0.01


cdef class Scheduler:
    """What the connections of a server ask their event loop for.

    Those that have something to send are flushed together, at the loop's next turn.

    Args:
        loop: its ``call_soon`` and ``call_later`` are used.
    """

    def __init__(self, loop):
        self.waiting = []
        self.call_soon = loop.call_soon
        self.call_later = loop.call_later

    cdef int flush_soon(self, Http2Protocol protocol) except -1:
        if not self.waiting:
            self.call_soon(self.flush)
        self.waiting.append(protocol)
        return 0

    def flush(self):
        """Send what waits on every connection."""
        cdef Http2Protocol protocol
        cdef list waiting = self.waiting
        broken = None
        self.waiting = []
        for protocol in waiting:
            try:
                protocol.flush()
            except Exception as error:
                # What is wrong with one connection is nothing to the others.
                protocol.abort()
                broken = error
        if broken is not None:
            raise broken


cdef class ReceiveBuffer:
    """The memory that all connections of one thread receive into, one after the other."""

    def __init__(self, Py_ssize_t size=1 << 18):
        self.size = size
        self.memory = bytearray(size)
        self.view = memoryview(self.memory)
        self.start = self.view[:START_BYTES]
        self.data = <uint8_t*>self.memory


cdef class Http2Protocol(Http2Connection):
    """A connection with its transport. For the event loop's thread only.

    Attributes:
        transport: set by ``connection_made``.
    """

    def __init__(
        self, limits, Scheduler scheduler not None, ReceiveBuffer buffer not None, now_ns=None
    ):
        self.scheduler = scheduler
        self.buffer = buffer
        self.socket = -1
        super().__init__(limits, monotonic_ns() if now_ns is None else now_ns)

    # Asyncio's side

    def connection_made(self, transport):
        """Asyncio's. Our SETTINGS wait for the peer's first bytes, which may not be HTTP/2."""
        self.transport = transport
        socket = transport.get_extra_info("socket")
        # The bytes of TLS are not those that are counted here.
        if socket is not None and transport.get_extra_info("ssl_object") is None:
            self.socket = socket.fileno()

    def connection_lost(self, exc):
        """Asyncio's: nobody waits for answers any more."""
        self.lose()
        self.transport = None
        self.socket = -1

    def eof_received(self):
        """Asyncio's: the peer has left; the transport closes itself."""
        return False

    def get_buffer(self, hint):
        """Asyncio's: where to receive to; good until ``buffer_updated`` returns."""
        self.place_owner = self.room_for_data(&self.place, &self.place_size)
        if self.place_owner is not None:
            return PyMemoryView_FromMemory(<char*>self.place, self.place_size, PyBUF_WRITE)
        self.place = self.buffer.data
        self.place_size = self.buffer.size
        if not self.large_frames:
            return self.buffer.view
        self.place_size = min(self.place_size, START_BYTES)
        return self.buffer.start

    def buffer_updated(self, Py_ssize_t size):
        """Asyncio's: ``size`` bytes have come."""
        cdef int64_t worth
        self.receiving = True
        try:
            self.feed(self.place, size, monotonic_ns())
        finally:
            self.receiving = False
            self.place_owner = None
        self.flush()
        if self.socket >= 0:
            worth = self.bytes_worth_waiting_for()
            # Where there was too little room, more is there already.
            if worth == 0 or size < self.place_size:
                self.wait_for(worth)

    cdef int wait_for(self, int64_t size) except -1:
        """Be woken for ``size`` bytes or more, or after a moment; for any at all if it is 0.

        Of a large message each segment would wake us, at more than the price of its copy.
        """
        cdef int low_water = <int>size if size else 1
        if size == self.low_water:
            return 0
        self.low_water = size
        setsockopt(self.socket, SOL_SOCKET, SO_RCVLOWAT, &low_water, sizeof(low_water))
        if self.impatience is not None:
            self.impatience.cancel()
            self.impatience = None
        if size:
            self.impatience = self.scheduler.call_later(IMPATIENCE_S, self.wait_no_longer)
        return 0

    def wait_no_longer(self):
        """The peer has paused: take what there is."""
        self.impatience = None
        if self.socket >= 0:
            self.wait_for(0)

    cdef int64_t bytes_worth_waiting_for(self) noexcept:
        """How many more bytes are sure to come and better taken together; 0 for none."""
        return 0

    cdef object room_for_data(self, uint8_t** place, Py_ssize_t* size):
        """The place where the next bytes stay, all of which are DATA; its owner, or ``None``."""
        return None

    def pause_writing(self):
        """Asyncio's: the transport is full."""
        self.now_ns = monotonic_ns()
        super().pause_writing()

    def resume_writing(self):
        """Asyncio's: the transport takes more."""
        self.now_ns = monotonic_ns()
        super().resume_writing()
        self.flush()
        if self.reading_paused and not self.write_paused:
            self.reading_paused = False
            self.transport.resume_reading()

    # Output

    cdef int output_waits(self) except -1:
        if not self.flush_is_due and not self.receiving and self.transport is not None:
            self.flush_is_due = True
            self.scheduler.flush_soon(self)
        return 0

    def flush(self):
        """Hand what waits to the transport; close it where there is nothing more to come."""
        if self.transport is None or (self.preface_seen == 0 and not self.failed):
            self.flush_is_due = False
            return
        # What is written below is said below.
        self.flush_is_due = True
        while self.out.size and not self.write_paused:
            self.transport.write(self.out.take())
            if self.waiting_bytes:
                self.pump()
        self.flush_is_due = False
        if self.done and not self.out.size:
            self.transport.close()
        elif self.write_paused and self.out.size and not self.reading_paused:
            # Whoever does not listen is not listened to: what it asks would be kept, too.
            self.reading_paused = True
            self.transport.pause_reading()

    def tick(self, int64_t now_ns):
        """See what has taken too long, and say so; end a connection that does not end by itself."""
        super().tick(now_ns)
        if not self.done:
            self.flush()
        elif self.ended_ns == 0:
            self.ended_ns = now_ns
            self.flush()
        elif now_ns - self.ended_ns > LINGER_NS:
            self.abort()

    def abort(self):
        """End the connection now, and whatever is in flight."""
        if self.transport is not None:
            self.transport.abort()
