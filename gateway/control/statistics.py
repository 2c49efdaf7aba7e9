"""A lane's counters in the form of the protocol's statistics extension."""

from collections.abc import Mapping
from typing import Any

from gateway.metrics import LaneStats


def model_statistics(name: str, version: str, stats: LaneStats) -> dict[str, Any]:
    """One entry of ``model_stats``, every field of it; times are nanoseconds.

    The counts of ``queue`` and ``compute_*`` are requests, those of ``batch_stats`` runs. There is
    no response cache, so its two durations stay zero, and no answer comes in parts, so
    ``response_stats`` stays empty.
    """
    answered = stats.requests_ok
    return {
        "name": name,
        "version": version,
        "last_inference": stats.last_inference_ms,
        "inference_count": stats.rows,
        "execution_count": stats.batches,
        "inference_stats": {
            "success": _duration(answered, stats.total_ns),
            "fail": _duration(stats.requests_failed, stats.failed_ns),
            "queue": _duration(answered, stats.queue_ns),
            "compute_input": _duration(answered, stats.input_ns),
            "compute_infer": _duration(answered, stats.infer_ns),
            "compute_output": _duration(answered, stats.output_ns),
            "cache_hit": _duration(0, 0),
            "cache_miss": _duration(0, 0),
        },
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": _duration(runs, input_ns),
                "compute_infer": _duration(runs, infer_ns),
                "compute_output": _duration(runs, output_ns),
            }
            for rows, (runs, input_ns, infer_ns, output_ns) in sorted(stats.batch_sizes.items())
        ],
        "memory_usage": [],
        "response_stats": {},
    }


def _duration(count: int, ns: int) -> Mapping[str, int]:
    return {"count": count, "ns": ns}
