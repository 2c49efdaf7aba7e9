"""What one lane did: plain counters, filled a batch at a time, read at scrape time."""

from libc.stdint cimport int64_t

from gateway._native.queue cimport Batch
from gateway._native.ticket cimport CANCELLED, ticket_t

cdef enum:
    N_BOUNDS = 22

#: Upper bounds of the latency histograms in nanoseconds: 1-2-5 steps from 10 us to 100 s. The
#: last bucket, past them all, has no bound.
LATENCY_BOUNDS_NS = tuple(
    step * 10**power for power in range(4, 11) for step in (1, 2, 5)
) + (10**11,)

cdef int64_t bounds[N_BOUNDS]
for _i in range(N_BOUNDS):
    bounds[_i] = LATENCY_BOUNDS_NS[_i]


cdef inline void observe(int64_t* buckets, int64_t ns) noexcept nogil:
    cdef int low = 0, high = N_BOUNDS, middle
    while low < high:
        middle = (low + high) // 2
        if ns <= bounds[middle]:
            high = middle
        else:
            low = middle + 1
    buckets[low] += 1


cdef list counts(int64_t* buckets):
    cdef int i
    return [buckets[i] for i in range(N_BOUNDS + 1)]


cdef class LaneStats:
    """Counters of one model version; all times are sums of nanoseconds.

    Used on the event loop's thread only.

    Attributes:
        requests_ok, requests_failed: answered requests; a failed one reached the model's queue.
        requests_cancelled: requests whose caller left before the answer.
        rows, batches: rows and runs of the model.
        queue_ns: from arrival until the batch was closed, over answered requests.
        input_ns, infer_ns, output_ns: gathering, running and answering; each request counts the
            whole time of its batch, as Triton's statistics do.
        total_ns: from arrival until answered, over requests answered well.
        failed_ns: the same over failed requests.
        last_inference_ms: wall clock of the last run, milliseconds since the epoch.
        rejected: refused requests by reason.
        batch_sizes: rows -> ``[runs, input_ns, infer_ns, output_ns]``.
    """

    cdef public int64_t requests_ok
    cdef public int64_t requests_failed
    cdef public int64_t requests_cancelled
    cdef public int64_t rows
    cdef public int64_t batches
    cdef public int64_t queue_ns
    cdef public int64_t input_ns
    cdef public int64_t infer_ns
    cdef public int64_t output_ns
    cdef public int64_t total_ns
    cdef public int64_t failed_ns
    cdef public int64_t last_inference_ms
    cdef readonly dict rejected
    cdef readonly dict batch_sizes
    cdef int64_t queue_buckets[N_BOUNDS + 1]
    cdef int64_t compute_buckets[N_BOUNDS + 1]
    cdef int64_t total_buckets[N_BOUNDS + 1]

    def __cinit__(self):
        self.rejected = {}
        self.batch_sizes = {}

    def record(
        self,
        Batch batch not None,
        int64_t infer_start_ns,
        int64_t infer_end_ns,
        int64_t done_ns,
        bint ok,
    ):
        """Account for a batch whose tickets have all been answered.

        Cancelled ones ran, but nobody was answered: they are counted where they were cancelled.

        Args:
            batch: the batch; its expired tickets are the caller's to count.
            infer_start_ns, infer_end_ns: around the run of the model.
            done_ns: when the last ticket was answered.
            ok: whether the model ran; a failed run counts its requests as failed.
        """
        cdef ticket_t* c = batch.taken.head
        cdef int64_t input_ns = batch.gathered_ns - batch.taken_ns
        cdef int64_t infer_ns = infer_end_ns - infer_start_ns
        cdef int64_t output_ns = done_ns - infer_end_ns
        cdef int64_t requests = 0, queue_ns = 0, total_ns = 0
        while c != NULL:
            if c.state == CANCELLED:
                c = c.next
                continue
            requests += 1
            queue_ns += batch.taken_ns - c.enqueued_ns
            total_ns += done_ns - c.enqueued_ns
            if ok:
                observe(self.queue_buckets, batch.taken_ns - c.enqueued_ns)
                observe(self.compute_buckets, infer_ns)
                observe(self.total_buckets, done_ns - c.enqueued_ns)
            c = c.next
        if not ok:
            self.requests_failed += requests
            self.failed_ns += total_ns
            return
        self.requests_ok += requests
        self.rows += batch.rows
        self.batches += 1
        self.queue_ns += queue_ns
        self.total_ns += total_ns
        self.input_ns += input_ns * requests
        self.infer_ns += infer_ns * requests
        self.output_ns += output_ns * requests
        entry = self.batch_sizes.get(batch.rows)
        if entry is None:
            self.batch_sizes[batch.rows] = [1, input_ns, infer_ns, output_ns]
        else:
            entry[0] += 1
            entry[1] += input_ns
            entry[2] += infer_ns
            entry[3] += output_ns

    def reject(self, str reason):
        """Count a request that was refused or given up, by reason."""
        self.rejected[reason] = self.rejected.get(reason, 0) + 1

    @property
    def queue_histogram(self):
        """Requests by time in the queue; one count a bound, and one past them all."""
        return counts(self.queue_buckets)

    @property
    def compute_histogram(self):
        """Requests by the run time of their batch."""
        return counts(self.compute_buckets)

    @property
    def total_histogram(self):
        """Requests by time from arrival to answer."""
        return counts(self.total_buckets)
