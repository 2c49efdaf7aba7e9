"""The bounded queue of one lane, and the batches taken from it.

The event loop's thread puts, cancels and expires; runners take. One mutex guards the lists; it is
held for list surgery only, never while taking the GIL, copying rows or running a model. A runner
waits and gathers without the GIL.

Time is passed in everywhere but in ``take``, whose waiting must follow the real clock.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uintptr_t
from posix.time cimport CLOCK_MONOTONIC, timespec

from gateway._native.arena cimport Arena
from gateway._native.clock cimport monotonic_ns
from gateway._native.plan cimport (
    Curve,
    Decision,
    Policy,
    Waiting,
    curve_at,
    curve_observe,
    fill_policy,
    plan,
)
from gateway._native.ticket cimport (
    CANCELLED,
    RETURNED,
    NEW,
    QUEUED,
    TAKEN,
    Group,
    Ticket,
    chain_append,
    chain_remove,
    chain_t,
    gather,
    group_t,
    lies_ready,
    ticket_t,
)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    ctypedef struct pthread_condattr_t:
        pass
    int pthread_mutex_init(pthread_mutex_t*, void*)
    int pthread_mutex_destroy(pthread_mutex_t*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_condattr_init(pthread_condattr_t*)
    int pthread_condattr_setclock(pthread_condattr_t*, int)
    int pthread_condattr_destroy(pthread_condattr_t*)
    int pthread_cond_init(pthread_cond_t*, pthread_condattr_t*)
    int pthread_cond_destroy(pthread_cond_t*)
    int pthread_cond_signal(pthread_cond_t*)
    int pthread_cond_broadcast(pthread_cond_t*)
    int pthread_cond_wait(pthread_cond_t*, pthread_mutex_t*)
    int pthread_cond_timedwait(pthread_cond_t*, pthread_mutex_t*, const timespec*)

cdef enum:
    # How many requests too large for the rest of a batch are passed over in search of one that
    # fits. Those passed over keep their place, and the first of them opens the next batch.
    LOOKAHEAD = 32


cdef class Batch:
    """Tickets taken together; closed once taken.

    Attributes:
        tickets: what to run, in row order. Their inputs lie gathered in the arena.
        in_place: whether they do not: a single large request that is aligned as it is stays where
            it came, until its ticket is released.
        rows: the sum of their rows.
        group: their common layout.
        expired: tickets found past their deadline on the way; they are to be told so.
        taken_ns, gathered_ns: when the batch was closed, and when its rows were in place.
        gathered: False when there was no memory to gather into; nothing may be run then.
    """

    cdef void stage(self, Arena arena) noexcept nogil:
        self.gathered = True
        self.in_place = False
        if self.taken.head != NULL:
            if arena.in_place_from:
                self.in_place = lies_ready(&self.taken, arena.in_place_from)
            if not self.in_place:
                self.gathered = gather(&self.taken, self.rows, arena)
        self.gathered_ns = monotonic_ns()

    cdef adopt(self):
        """Turn the chains into lists, taking over the queue's references."""
        cdef ticket_t* c = self.taken.head
        self.tickets = []
        while c != NULL:
            ticket = <Ticket>c.owner
            self.tickets.append(ticket)
            Py_DECREF(ticket)
            c = c.next
        if self.tickets:
            self.group = (<Ticket>self.taken.head.owner).group
        self.expired = adopt_chain(&self.late)

    def addresses(self):
        """Where the inputs of a batch that is ``in_place`` lie, as ints."""
        cdef Ticket ticket = self.tickets[0]
        cdef int i
        return [<uintptr_t>ticket.c.sources[i] for i in range(ticket.group.c.n_inputs)]

    def table(self):
        """The tickets in numbers: a flat array of ``int64`` in native byte order, as bytes.

        Three for each ticket, in row order: its rows, its ``enqueued_ns``, and 1 where it has been
        cancelled, else 0. While no ticket has been released.
        """
        cdef bytes made = PyBytes_FromStringAndSize(NULL, 24 * <Py_ssize_t>len(self.tickets))
        cdef int64_t* numbers = <int64_t*>PyBytes_AS_STRING(made)
        cdef Ticket ticket
        for ticket in self.tickets:
            numbers[0] = ticket.c.rows
            numbers[1] = ticket.c.enqueued_ns
            numbers[2] = ticket.c.state == CANCELLED
            numbers += 3
        return made

    def alone(self, Ticket ticket not None, Arena arena not None):
        """A batch of one ticket of this batch, gathered anew.

        For running a failed batch's requests one by one. The ticket must not have been released.
        """
        cdef Batch batch = Batch.__new__(Batch)
        batch.taken.head = batch.taken.tail = &ticket.c
        batch.rows = ticket.c.rows
        batch.taken_ns = self.taken_ns
        batch.group = ticket.group
        batch.tickets = [ticket]
        batch.expired = []
        batch.stage(arena)
        return batch


cdef list adopt_chain(chain_t* chain):
    cdef ticket_t* c = chain.head
    tickets = []
    while c != NULL:
        ticket = <Ticket>c.owner
        tickets.append(ticket)
        Py_DECREF(ticket)
        c = c.next
    return tickets


cdef class BatchQueue:
    """A bounded queue that forms batches of like requests.

    Args:
        max_rows: most rows in a batch.
        max_count: most tickets that may wait.
        max_delay_ns, objective_ns, preferred: see ``plan``.

    Raises:
        ValueError: settings that make no sense.
        MemoryError: the operating system gave no lock.
    """

    cdef pthread_mutex_t mutex
    cdef pthread_cond_t arrived
    cdef Policy policy
    cdef Curve curve
    cdef group_t* groups
    cdef int64_t max_count
    cdef int64_t count
    cdef int64_t rows
    cdef int64_t last_put_ns
    cdef int64_t gap_ns
    cdef int idle_runners
    cdef bint closed
    cdef bint locks_made
    cdef readonly int64_t wait_until_ns

    def __cinit__(
        self,
        int64_t max_rows,
        int64_t max_count,
        int64_t max_delay_ns=0,
        int64_t objective_ns=0,
        preferred=(),
    ):
        cdef pthread_condattr_t attributes
        fill_policy(&self.policy, max_rows, max_delay_ns, objective_ns, preferred)
        if max_count < 1:
            raise ValueError(f"max_count must be at least 1, not {max_count}")
        self.max_count = max_count
        if pthread_mutex_init(&self.mutex, NULL) != 0:
            raise MemoryError("no mutex to be had")
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(&self.arrived, &attributes)
        pthread_condattr_destroy(&attributes)
        self.locks_made = True

    def __dealloc__(self):
        cdef chain_t left
        if self.locks_made:
            left.head = left.tail = NULL
            self.take_all(&left)
            adopt_chain(&left)
            pthread_cond_destroy(&self.arrived)
            pthread_mutex_destroy(&self.mutex)

    def put(self, Ticket ticket not None, int64_t now_ns):
        """Accept a ticket; O(1).

        Returns:
            True when accepted: the core owns the ticket now. False when the queue is full or
            closed: the ticket is still the caller's.

        Raises:
            ValueError: the ticket was put before, or has more rows than a batch may.
        """
        cdef ticket_t* c = &ticket.c
        cdef group_t* group = c.group
        cdef int64_t gap
        if c.state != NEW:
            raise ValueError("a ticket is put once")
        if c.weight > self.policy.max_rows:
            raise ValueError(f"{c.rows} rows do not fit a batch of {self.policy.max_rows}")
        pthread_mutex_lock(&self.mutex)
        if self.closed or self.count >= self.max_count:
            pthread_mutex_unlock(&self.mutex)
            return False
        Py_INCREF(ticket)
        c.state = QUEUED
        c.enqueued_ns = now_ns
        chain_append(&group.levels[c.level], c)
        if not group.listed:
            self.list_group(group)
        group.weight += c.weight
        group.count += 1
        if c.deadline_ns and (group.deadline_ns == 0 or c.deadline_ns < group.deadline_ns):
            group.deadline_ns = c.deadline_ns
        self.count += 1
        self.rows += c.rows
        if self.last_put_ns:
            gap = (now_ns - self.last_put_ns) // c.weight
            self.gap_ns = gap if self.gap_ns == 0 else self.gap_ns + (gap - self.gap_ns) // 8
        self.last_put_ns = now_ns
        if self.idle_runners:
            pthread_cond_signal(&self.arrived)
        pthread_mutex_unlock(&self.mutex)
        return True

    def cancel(self, Ticket ticket not None):
        """The caller left. True when the ticket still waited and its place is free again.

        A ticket that was already taken runs to its end; ``ticket.cancelled`` tells whoever
        completes it that nobody listens.
        """
        cdef bint waited
        pthread_mutex_lock(&self.mutex)
        waited = ticket.c.state == QUEUED
        if waited:
            self.remove(&ticket.c)
        ticket.c.state = CANCELLED
        pthread_mutex_unlock(&self.mutex)
        if waited:
            Py_DECREF(ticket)
        return waited

    def expire(self, int64_t now_ns):
        """Take out and return every waiting ticket whose deadline has passed."""
        cdef chain_t late
        cdef group_t* group
        cdef group_t* following
        late.head = late.tail = NULL
        with nogil:
            pthread_mutex_lock(&self.mutex)
            group = self.groups
            while group != NULL:
                following = group.next
                if group.deadline_ns and group.deadline_ns <= now_ns:
                    self.expire_group(group, now_ns, &late)
                group = following
            pthread_mutex_unlock(&self.mutex)
        return adopt_chain(&late)

    def next_deadline(self):
        """The earliest deadline among the waiting tickets; 0 for none."""
        cdef int64_t earliest = 0
        cdef group_t* group
        pthread_mutex_lock(&self.mutex)
        group = self.groups
        while group != NULL:
            if group.deadline_ns and (earliest == 0 or group.deadline_ns < earliest):
                earliest = group.deadline_ns
            group = group.next
        pthread_mutex_unlock(&self.mutex)
        return earliest

    def poll(self, Arena arena not None, int64_t now_ns):
        """A batch if one is to be run now, else ``None``.

        After ``None``, ``wait_until_ns`` says when to ask again: 0 for not before the next
        ``put``. For lanes that run on the event loop; never blocks.
        """
        cdef Batch batch
        cdef bint found
        if self.count == 0:
            self.wait_until_ns = 0
            return None
        batch = Batch.__new__(Batch)
        with nogil:
            pthread_mutex_lock(&self.mutex)
            found = self.select(batch, now_ns)
            pthread_mutex_unlock(&self.mutex)
            if found:
                batch.stage(arena)
        if not found:
            return None
        batch.adopt()
        return batch

    def take(self, Arena arena not None):
        """Wait for a batch, without the GIL. ``None`` once the queue is closed.

        The batch may hold expired tickets only. For runner threads.
        """
        cdef Batch batch = Batch.__new__(Batch)
        cdef bint found = False
        with nogil:
            pthread_mutex_lock(&self.mutex)
            while not self.closed:
                found = self.select(batch, monotonic_ns())
                if found:
                    break
                self.wait()
            if self.count and self.idle_runners:
                pthread_cond_signal(&self.arrived)
            pthread_mutex_unlock(&self.mutex)
            if found:
                batch.stage(arena)
        if not found:
            return None
        batch.adopt()
        return batch

    def observe(self, int64_t rows, int64_t ns):
        """Learn that a run of ``rows`` rows took ``ns`` nanoseconds."""
        pthread_mutex_lock(&self.mutex)
        curve_observe(&self.curve, rows, ns)
        pthread_mutex_unlock(&self.mutex)

    def latency_ns(self, int64_t rows):
        """The learned cost of a run of ``rows`` rows in nanoseconds; 0 for unknown."""
        return curve_at(&self.curve, rows)

    def close(self):
        """Refuse further tickets, send the runners home, and return the tickets that waited."""
        cdef chain_t left
        left.head = left.tail = NULL
        pthread_mutex_lock(&self.mutex)
        self.closed = True
        self.take_all(&left)
        pthread_cond_broadcast(&self.arrived)
        pthread_mutex_unlock(&self.mutex)
        return adopt_chain(&left)

    def __len__(self):
        return self.count

    @property
    def waiting_rows(self):
        """Rows that wait."""
        return self.rows

    cdef void wait(self) noexcept nogil:
        cdef timespec until
        self.idle_runners += 1
        if self.wait_until_ns:
            until.tv_sec = self.wait_until_ns // 1000000000
            until.tv_nsec = self.wait_until_ns % 1000000000
            pthread_cond_timedwait(&self.arrived, &self.mutex, &until)
        else:
            pthread_cond_wait(&self.arrived, &self.mutex)
        self.idle_runners -= 1

    cdef void take_all(self, chain_t* left) noexcept nogil:
        """Move every waiting ticket into ``left``."""
        cdef group_t* group
        cdef ticket_t* c
        cdef int level
        while self.groups != NULL:
            group = self.groups
            for level in range(group.n_levels):
                while group.levels[level].head != NULL:
                    c = group.levels[level].head
                    self.unlink(c)
                    c.state = RETURNED
                    chain_append(left, c)
            self.unlist_group(group)

    cdef void list_group(self, group_t* group) noexcept nogil:
        group.listed = True
        group.prev = NULL
        group.next = self.groups
        if self.groups != NULL:
            self.groups.prev = group
        self.groups = group

    cdef void unlist_group(self, group_t* group) noexcept nogil:
        if group.prev != NULL:
            group.prev.next = group.next
        else:
            self.groups = group.next
        if group.next != NULL:
            group.next.prev = group.prev
        group.prev = group.next = NULL
        group.listed = False
        group.deadline_ns = 0

    cdef void unlink(self, ticket_t* c) noexcept nogil:
        """Take a waiting ticket out of its chain and the counts, and nothing else."""
        cdef group_t* group = c.group
        chain_remove(&group.levels[c.level], c)
        group.weight -= c.weight
        group.count -= 1
        self.count -= 1
        self.rows -= c.rows

    cdef void remove(self, ticket_t* c) noexcept nogil:
        """Take one waiting ticket out, leaving its group as it should be."""
        cdef group_t* group = c.group
        self.unlink(c)
        self.settle(group, c.deadline_ns)

    cdef void settle(self, group_t* group, int64_t gone_deadline_ns) noexcept nogil:
        """Unlist a group that ran empty; find its earliest deadline again if that one left."""
        cdef int level
        cdef ticket_t* c
        if group.count == 0:
            if group.listed:
                self.unlist_group(group)
            return
        if group.deadline_ns == 0 or gone_deadline_ns != group.deadline_ns:
            return
        group.deadline_ns = 0
        for level in range(group.n_levels):
            c = group.levels[level].head
            while c != NULL:
                if c.deadline_ns and (
                    group.deadline_ns == 0 or c.deadline_ns < group.deadline_ns
                ):
                    group.deadline_ns = c.deadline_ns
                c = c.next

    cdef void expire_group(
        self, group_t* group, int64_t now_ns, chain_t* late
    ) noexcept nogil:
        cdef int level
        cdef ticket_t* c
        cdef ticket_t* following
        for level in range(group.n_levels):
            c = group.levels[level].head
            while c != NULL:
                following = c.next
                if c.deadline_ns and c.deadline_ns <= now_ns:
                    self.unlink(c)
                    c.state = RETURNED
                    chain_append(late, c)
                c = following
        self.settle(group, group.deadline_ns)

    cdef bint select(self, Batch batch, int64_t now_ns) noexcept nogil:
        """Close a batch if some group's time has come; the mutex is held.

        Among the groups that are due, the one whose head is the most urgent, then the oldest,
        goes first, so that a crowd of one shape never starves another.
        """
        cdef group_t* group = self.groups
        cdef group_t* following
        cdef group_t* chosen = NULL
        cdef ticket_t* head
        cdef ticket_t* best = NULL
        cdef Waiting waiting
        cdef Decision decision
        cdef int64_t rows = 0
        self.wait_until_ns = 0
        waiting.gap_ns = self.gap_ns
        while group != NULL:
            following = group.next
            if group.deadline_ns and group.deadline_ns <= now_ns:
                self.expire_group(group, now_ns, &batch.late)
            if group.count:
                head = heads(group, &waiting.oldest_ns)
                waiting.rows = group.weight
                waiting.deadline_ns = group.deadline_ns
                decision = plan(&self.policy, &self.curve, &waiting, now_ns)
                if decision.rows == 0:
                    if self.wait_until_ns == 0 or decision.wait_until_ns < self.wait_until_ns:
                        self.wait_until_ns = decision.wait_until_ns
                elif best == NULL or head.level < best.level or (
                    head.level == best.level and head.enqueued_ns < best.enqueued_ns
                ):
                    chosen = group
                    best = head
                    rows = decision.rows
            group = following
        if chosen != NULL:
            self.fill(batch, chosen, rows)
        batch.taken_ns = now_ns
        return chosen != NULL or batch.late.head != NULL

    cdef void fill(self, Batch batch, group_t* group, int64_t rows) noexcept nogil:
        """Move tickets worth up to ``rows`` rows into the batch, urgent and old ones first.

        The first ticket goes along whatever its size: the decision may ask for fewer rows than
        it brings, and a request within the batch limit is never split.
        """
        cdef int level, passed = 0
        cdef int64_t left = rows
        cdef ticket_t* c
        cdef ticket_t* following
        for level in range(group.n_levels):
            c = group.levels[level].head
            while c != NULL and left > 0 and passed < LOOKAHEAD:
                following = c.next
                if c.weight <= left or batch.taken.head == NULL:
                    left -= c.weight
                    self.unlink(c)
                    c.state = TAKEN
                    chain_append(&batch.taken, c)
                    batch.rows += c.rows
                else:
                    passed += 1
                c = following
        self.settle(group, group.deadline_ns)


cdef ticket_t* heads(group_t* group, int64_t* oldest_ns) noexcept nogil:
    """The head of the most urgent level; ``oldest_ns`` gets the oldest arrival of any level."""
    cdef int level
    cdef ticket_t* first = NULL
    cdef ticket_t* c
    for level in range(group.n_levels):
        c = group.levels[level].head
        if c != NULL and first == NULL:
            first = c
            oldest_ns[0] = c.enqueued_ns
        elif c != NULL and c.enqueued_ns < oldest_ns[0]:
            oldest_ns[0] = c.enqueued_ns
    return first
