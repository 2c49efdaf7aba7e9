"""Prometheus metrics of what changes: loads, who serves, canaries, shadows.

As those in ``metrics.py`` they are made of plain counters when somebody scrapes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True, kw_only=True)
class CanarySample:
    """A canary that has not been replaced by another; ``percent`` is 0 once it is over."""

    version: str
    phase: str
    percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowSample:
    """A shadow: ``requests`` counts those of the primary by what became of their copies."""

    model: str
    version: str
    requests: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSample:
    """One model at the moment of a scrape; ``serving`` is ``""`` where no version serves.

    ``loads`` counts its versions' loads by outcome.
    """

    model: str
    serving: str
    loads: Mapping[str, int] = field(default_factory=dict)
    canary: CanarySample | None = None
    shadow: ShadowSample | None = None


class RolloutCollector(Collector):
    """The metrics of what ``sample`` gives; for the event loop's thread."""

    def __init__(self, sample: Callable[[], Iterable[ModelSample]]) -> None:
        self._sample = sample

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every family, made anew."""
        samples = list(self._sample())
        serving = GaugeMetricFamily(
            "onnx_gateway_model_serving",
            "1 for the version that answers requests which name none.",
            labels=("model", "version"),
        )
        loads = CounterMetricFamily(
            "onnx_gateway_model_loads",
            "Loads of a model's versions, by outcome.",
            labels=("model", "outcome"),
        )
        for sample in samples:
            if sample.serving:
                serving.add_metric((sample.model, sample.serving), 1)
            for outcome, count in sorted(sample.loads.items()):
                loads.add_metric((sample.model, outcome), count)
        yield serving
        yield loads
        yield from _canaries(samples)
        yield _shadows(samples)


def _canaries(samples: Iterable[ModelSample]) -> Iterator[Metric]:
    percent = GaugeMetricFamily(
        "onnx_gateway_canary_percent",
        "Percent of a model's traffic that the canary's version is to get.",
        labels=("model", "version"),
    )
    phase = GaugeMetricFamily(
        "onnx_gateway_canary_phase",
        "1 for the phase that the model's last canary is in.",
        labels=("model", "version", "phase"),
    )
    for sample in samples:
        if (canary := sample.canary) is not None:
            percent.add_metric((sample.model, canary.version), canary.percent)
            phase.add_metric((sample.model, canary.version, canary.phase), 1)
    yield percent
    yield phase


def _shadows(samples: Iterable[ModelSample]) -> Metric:
    family = CounterMetricFamily(
        "onnx_gateway_shadow_requests",
        "Requests of a shadowed model by what became of their copies; counted from the shadow's "
        "beginning.",
        labels=("model", "shadow_model", "shadow_version", "outcome"),
    )
    for sample in samples:
        if (shadow := sample.shadow) is not None:
            for outcome, count in shadow.requests.items():
                labels = (sample.model, shadow.model, shadow.version, outcome)
                family.add_metric(labels, count)
    return family
