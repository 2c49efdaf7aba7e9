from gateway._native.queue import Batch

LATENCY_BOUNDS_NS: tuple[int, ...]

class LaneStats:
    requests_ok: int
    requests_failed: int
    requests_cancelled: int
    rows: int
    batches: int
    queue_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int
    total_ns: int
    failed_ns: int
    last_inference_ms: int
    rejected: dict[str, int]
    batch_sizes: dict[int, list[int]]
    def record(
        self, batch: Batch, infer_start_ns: int, infer_end_ns: int, done_ns: int, ok: bool
    ) -> None: ...
    def reject(self, reason: str) -> None: ...
    @property
    def queue_histogram(self) -> list[int]: ...
    @property
    def compute_histogram(self) -> list[int]: ...
    @property
    def total_histogram(self) -> list[int]: ...
