"""Prometheus metrics of alerts, episodes of drift, and what is done about them.

As those in ``metrics.py`` they are made of plain values when somebody scrapes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSample:
    """One alert; ``state`` is one of ``AlertsSample.states``."""

    model: str
    version: str
    kind: str
    alert: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSample:
    """An open episode; ``began`` is in Unix seconds."""

    model: str
    version: str
    began: float
    acknowledged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertsSample:
    """All of it at the moment of a scrape.

    Attributes:
        states: every state that an alert can be in.
        episodes_begun: by model.
        attempts: attempts of actions, by action, model and outcome.
        pending: actions that are owed: to be run, or running; by action.
        messages: by channel and what became of them.
        silenced: models of which nobody is told.
        reports: windows by what became of them.
    """

    states: Sequence[str] = ()
    alerts: Sequence[AlertSample] = ()
    episodes: Sequence[EpisodeSample] = ()
    episodes_begun: Mapping[str, int] = field(default_factory=dict)
    attempts: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    pending: Mapping[str, int] = field(default_factory=dict)
    messages: Mapping[tuple[str, str], int] = field(default_factory=dict)
    silenced: Sequence[str] = ()
    reports: Mapping[str, int] = field(default_factory=dict)


class AlertCollector(Collector):
    """The metrics of what ``sample`` gives; for the event loop's thread."""

    def __init__(self, sample: Callable[[], AlertsSample]) -> None:
        self._sample = sample

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every family, made anew."""
        sample = self._sample()
        yield _states(sample)
        yield from _episodes(sample)
        yield from _actions(sample)
        messages = CounterMetricFamily(
            "onnx_gateway_alert_messages",
            "Messages about alerts by channel and what became of them.",
            labels=("channel", "outcome"),
        )
        for labels, count in sorted(sample.messages.items()):
            messages.add_metric(labels, count)
        yield messages
        silenced = GaugeMetricFamily(
            "onnx_gateway_alerts_silenced",
            "1 for a model of which nobody is told anything.",
            labels=("model",),
        )
        for model in sorted(sample.silenced):
            silenced.add_metric((model,), 1)
        yield silenced
        reports = CounterMetricFamily(
            "onnx_gateway_alert_reports",
            "Windows that were judged by the alerts, and those that were dropped on their way.",
            labels=("outcome",),
        )
        for outcome, count in sorted(sample.reports.items()):
            reports.add_metric((outcome,), count)
        yield reports


def _states(sample: AlertsSample) -> Metric:
    family = GaugeMetricFamily(
        "onnx_gateway_alert_state",
        "1 for the state that an alert is in, 0 for the others. The kind is subject for a feature "
        "or output, test for a measure of the model as a whole, rule for a rule, version for the "
        "worst of tests and rules.",
        labels=("model", "version", "kind", "alert", "state"),
    )
    for alert in sample.alerts:
        for state in sample.states:
            labels = (alert.model, alert.version, alert.kind, alert.alert, state)
            family.add_metric(labels, float(state == alert.state))
    return family


def _episodes(sample: AlertsSample) -> Iterator[Metric]:
    began = GaugeMetricFamily(
        "onnx_gateway_drift_episode_began_seconds",
        "When the open episode of a drifted version began, in Unix seconds.",
        labels=("model", "version"),
    )
    acknowledged = GaugeMetricFamily(
        "onnx_gateway_drift_episode_acknowledged",
        "Whether somebody has said that they know of the open episode.",
        labels=("model", "version"),
    )
    for episode in sample.episodes:
        labels = (episode.model, episode.version)
        began.add_metric(labels, episode.began)
        acknowledged.add_metric(labels, float(episode.acknowledged))
    yield began
    yield acknowledged
    begun = CounterMetricFamily(
        "onnx_gateway_drift_episodes",
        "Episodes of drift that have begun.",
        labels=("model",),
    )
    for model, count in sorted(sample.episodes_begun.items()):
        begun.add_metric((model,), count)
    yield begun


def _actions(sample: AlertsSample) -> Iterator[Metric]:
    attempts = CounterMetricFamily(
        "onnx_gateway_drift_action_attempts",
        "Attempts of the actions of episodes, by what they came to.",
        labels=("action", "model", "outcome"),
    )
    for labels, count in sorted(sample.attempts.items()):
        attempts.add_metric(labels, count)
    yield attempts
    pending = GaugeMetricFamily(
        "onnx_gateway_drift_actions_pending",
        "Actions of episodes that run, or are to be run or tried again.",
        labels=("action",),
    )
    for action, count in sorted(sample.pending.items()):
        pending.add_metric((action,), count)
    yield pending
