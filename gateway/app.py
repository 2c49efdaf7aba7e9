"""The composition root: builds every part, wires them, starts, drains and stops.

Shutting down, at the first SIGTERM or SIGINT: readiness goes false; after ``drain_delay_s`` new
requests are refused and the listeners close; what is in flight gets ``grace_period_s`` to finish;
then connections and models are closed and the exit code is 0. A second signal ends the process at
once with the code 128 + its number, 143 for SIGTERM and 130 for SIGINT.
"""

import asyncio
import gc
import logging
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

import uvloop

from gateway import __version__
from gateway._native.stats import LATENCY_BOUNDS_NS
from gateway.config import Config
from gateway.control.manager import Manager
from gateway.control.memory_budget import MemoryBudget
from gateway.control.monitor_record import MonitorRecord
from gateway.control.rollouts import Rollouts
from gateway.control.routing import Routing
from gateway.control.service import ControlService
from gateway.control.state_store import StateStore
from gateway.control.watcher import RepositoryWatcher
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.route import RouteTable
from gateway.errors import ConfigError, StartupError
from gateway.front.admin import AdminFront
from gateway.front.admin_alerts import AlertEndpoints
from gateway.front.admin_drift import DriftEndpoints
from gateway.front.admin_live import WatchEndpoints
from gateway.front.grpc_grpcio import GrpcioFront
from gateway.front.grpc_native import NativeFront
from gateway.front.grpc_options import GrpcOptions, TlsFiles
from gateway.front.http_context import HttpLimits
from gateway.front.http_server import HttpFront, MetricsFront
from gateway.front.live_feed import LiveStream as Live
from gateway.front.shared_memory import SharedMemoryRegions
from gateway.logs import Logging
from gateway.metrics import GatewayMetrics, ServerSample, VersionSample
from gateway.monitor.actions import read_action
from gateway.monitor.alert_settings import AlertSettings
from gateway.monitor.alerting import Alerting, Serving
from gateway.monitor.channels import read_channel
from gateway.monitor.further_kinds import FURTHER_KINDS
from gateway.monitor.ground_truth import GroundTruth
from gateway.monitor.monitors import Monitors
from gateway.monitor.performance_kind import PerformanceKind
from gateway.monitoring_file import read_monitoring_file
from gateway.serving.lifecycle import State
from gateway.serving.memory import give_back_large_blocks
from gateway.serving.onnx.runtime import runtime
from gateway.serving.registry import Registry
from gateway.setting_types import Port
from gateway.stream.live import LiveStream
from gateway.stream.sinks.sinks import Sinks
from gateway.stream.stream import PredictionStream
from gateway.stream_metrics import StreamSample

log = logging.getLogger(__name__)


class Front(Protocol):
    """A listener."""

    @property
    def port(self) -> int:
        """The bound port, once started."""

    async def start(self) -> None:
        """Bind and listen."""

    def stop_accepting(self) -> None:
        """Take no new connections; those there are stay."""

    async def close(self, grace_s: float) -> None:
        """Close the connections, after ``grace_s`` seconds at the latest."""


#: The front of each ``grpc_impl``.
GRPC_FRONTS: Final[
    dict[
        str,
        Callable[
            [Dispatcher, ControlService, SharedMemoryRegions, GrpcOptions, Live | None], Front
        ],
    ]
] = {
    "native": NativeFront,
    "grpcio": GrpcioFront,
}


class Gateway:
    """A whole server, made of a ``Config``; lives on one event loop."""

    def __init__(
        self, config: Config, logs: Logging, *, fault: Callable[[str], None] | None = None
    ) -> None:
        """Build the parts.

        Args:
            fault: called with the name of each point at which a change of traffic might be cut
                short; for tests.
        """
        self._config = config
        self._registry = Registry()
        self.dispatcher = Dispatcher(RouteTable((), {}), max_inflight=config.max_inflight_requests)
        self._loaded = False
        routing = Routing(self._registry, self._publish, keep_previous=config.keep_previous)
        self.stream = PredictionStream()
        monitoring = read_monitoring_file(config.monitoring)
        self.sinks = Sinks(monitoring.sinks)
        self.manager = Manager(
            config.models,
            self._registry,
            routing,
            inline_threshold_ns=config.inline_threshold_us * 1000,
            load_threads=config.load_threads,
            strict_readiness=config.strict_readiness,
            budget=MemoryBudget(config.memory_budget),
            taps=self.stream,
        )
        directory = Path(config.state_dir) if config.state_dir else None
        self.live = LiveStream(self.stream, config.max_stream_subscribers)
        self.truth = GroundTruth(
            directory, settings=self.stream.label_settings, flush=self.stream.flush
        )
        store = StateStore(directory, fault=fault)
        self.rollouts = Rollouts(self.manager, routing, self._registry, store, fault=fault)
        self.alerting = Alerting(
            MonitorRecord(store, self._registry),
            Serving(
                models=self.rollouts.known_models,
                version=routing.serving,
                settings=self._alert_settings,
            ),
            channels=[read_channel(part) for part in monitoring.channels],
            actions=[read_action(part) for part in monitoring.actions],
        )
        performance = PerformanceKind()
        self.truth.listen(performance)
        self.monitors = Monitors(
            self.stream,
            kinds=(*FURTHER_KINDS, performance),
            listeners=[self.alerting],
            keep=directory and directory / "references",
        )
        self.service = ControlService(self.manager, self.rollouts, logs)
        self.metrics = GatewayMetrics(
            self._sample_server,
            self._sample_versions,
            self.rollouts.samples,
            self._sample_stream,
            self.truth.samples,
            self.monitors.samples,
            alerts=self.alerting.sample,
            states=[state.value for state in State],
            latency_bounds_ns=LATENCY_BOUNDS_NS,
            build={
                "version": __version__,
                "python": platform.python_version(),
                "onnxruntime": runtime().__version__,
            },
        )
        self._shared_memory = SharedMemoryRegions(config.max_request_bytes)
        self._stop = asyncio.Event()
        self._fronts: dict[str, Front] = {}

    async def run(self) -> int:
        """Serve until a signal comes; returns the exit code.

        Raises:
            StartupError: a port cannot be bound, or a model failed to load and ``exit_on_error`` is
                set.
        """
        self._catch_signals()
        await self.rollouts.open()
        await self.truth.open()
        self.stream.subscribe(self.truth.subscription)
        self.sinks.start(self.stream)
        await self.alerting.open()
        self.monitors.start()
        await self._listen()
        loading = asyncio.create_task(self._load())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                loading.result()
                await stopping
        finally:
            loading.cancel()
            stopping.cancel()
            await asyncio.gather(loading, stopping, return_exceptions=True)
            await self._shut_down()
        return 0

    # -- starting -----------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Start every front; the models are loaded behind them, and readiness tells when."""
        config = self._config
        limits = HttpLimits(
            max_request_bytes=config.max_request_bytes,
            max_header_bytes=config.max_header_bytes,
            keep_alive_timeout_s=config.keepalive_timeout_s,
            read_timeout_s=config.read_timeout_s,
        )
        if config.http_port:
            self._fronts["HTTP"] = HttpFront(
                self.dispatcher,
                self.service,
                self._shared_memory,
                host=config.host,
                port=_bindable(config.http_port),
                limits=limits,
                metrics=self.metrics.exposition,
                access_log=config.access_log,
            )
        if config.grpc_port:
            self._fronts["gRPC"] = GRPC_FRONTS[config.grpc_impl](
                self.dispatcher,
                self.service,
                self._shared_memory,
                _grpc_options(config),
                self.live if config.grpc_prediction_stream else None,
            )
            if config.grpc_prediction_stream and not config.grpc_tls_client_ca:
                log.warning(
                    "whoever reaches the gRPC port may watch all predictions: "
                    "--grpc-prediction-stream is set, and --grpc-tls-client-ca is not"
                )
        if config.metrics_port:
            self._fronts["metrics"] = MetricsFront(
                self.metrics.exposition,
                host=config.host,
                port=_bindable(config.metrics_port),
                limits=limits,
            )
        if config.admin_port:
            self._fronts["admin"] = AdminFront(
                self.rollouts,
                version=__version__,
                host=config.admin_host,
                port=_bindable(config.admin_port),
                allowed_hosts=config.admin_allowed_hosts,
                limits=limits,
                access_log=config.access_log,
                stream=self._stream_status,
                more=[
                    *WatchEndpoints(self.rollouts, self.live, self.truth).routes(),
                    *DriftEndpoints(self.monitors).routes(),
                    *AlertEndpoints(self.alerting).routes(),
                ],
            )
        for name, front in self._fronts.items():
            await front.start()
            log.info("%s on %s", name, _address(name, front.port, config))

    async def _load(self) -> None:
        config = self._config
        started = time.monotonic()
        explicit = config.model_control_mode == "explicit"
        watcher = None
        if config.model_control_mode == "poll":
            watcher = RepositoryWatcher(config.models, self.rollouts, config.repository_poll_s)
            await watcher.start()
        failures = await self.manager.start(config.load_models if explicit else None)
        if failures and config.exit_on_error:
            raise StartupError(
                f"{len(failures)} models failed to load, and --exit-on-error is set:\n"
                + "\n".join(f"  {failure}" for failure in failures)
            )
        # Before that, a version may serve for a moment that is not the one that was decided upon.
        self._loaded = True
        self.alerting.routed()
        spare_the_collector()
        names = self.service.model_names()
        log.log(
            logging.WARNING if failures or not names else logging.INFO,
            "serving %d models after %.1f s%s%s",
            len(names),
            time.monotonic() - started,
            f": {', '.join(names)}" if names else "",
            f"; {len(failures)} failed to load, see above" if failures else "",
        )
        if not self.service.is_ready():
            log.warning(
                "the server is not ready, because not every model serves; "
                "--no-strict-readiness makes it ready nevertheless"
            )
        if watcher is not None:
            await watcher.run()

    def _publish(self, routes: RouteTable) -> None:
        self.dispatcher.routes = routes
        if self._loaded:
            self.alerting.routed()

    def _alert_settings(self, model: str, version: str) -> AlertSettings:
        settings = self.monitors.settings(model, version)
        return AlertSettings() if settings is None else settings.alerts

    # -- stopping -----------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            log.warning("a second signal, %s: ending at once", number.name)
            _leave(128 + number)
        log.info("%s: shutting down; a second signal ends at once", number.name)
        self.manager.refuse_readiness()
        # In the same turn of the loop: whoever sees the one sees the other.
        self.dispatcher.draining = not self._config.drain_delay_s
        self._stop.set()

    async def _shut_down(self) -> None:
        config = self._config
        self.manager.refuse_readiness()
        if self._stop.is_set() and config.drain_delay_s:
            log.info("not ready any more; serving for another %g s", config.drain_delay_s)
            await asyncio.sleep(config.drain_delay_s)
        # The listeners stay open meanwhile: who asks is told that the server is shutting down.
        self.dispatcher.draining = True
        deadline = time.monotonic() + config.grace_period_s
        if self.dispatcher.inflight:
            log.info(
                "waiting up to %g s for %d requests in flight",
                config.grace_period_s,
                self.dispatcher.inflight,
            )
        while self.dispatcher.inflight and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        if cut := self.dispatcher.inflight:
            log.warning("the grace period has passed; %d requests are cut off", cut)
        # After the last answer, so that it can be seen; connections would never end else.
        self.live.drain()
        for front in self._fronts.values():
            front.stop_accepting()
        rest_s = max(deadline - time.monotonic(), 0.0)
        await asyncio.gather(*(front.close(rest_s) for front in self._fronts.values()))
        self.stream.flush()
        await self.truth.close()
        await self.sinks.close(self.stream, config.sink_flush_s)
        await self.monitors.close()
        await self.alerting.close()
        if cut or self.manager.loading:
            # A run or a load inside ONNX Runtime cannot be interrupted, and joining its thread
            # would outlast the grace period.
            log.info("stopped")
            _leave(0)
        await self.rollouts.close()
        await self.manager.close()
        log.info("stopped")

    # -- metrics ------------------------------------------------------------------------------

    def _sample_server(self) -> ServerSample:
        return ServerSample(
            ready=self.service.is_ready(),
            inflight=self.dispatcher.inflight,
            rejected={_snake(k): v for k, v in self.dispatcher.refused.items()},
            memory_budget_bytes=self.manager.budget.limit_bytes,
        )

    def _sample_versions(self) -> Iterator[VersionSample]:
        for entry in self.manager.versions():
            lane = entry.lane
            yield VersionSample(
                entry.name,
                entry.version,
                entry.state.value,
                lane.waiting if lane else 0,
                lane.stats if lane else None,
                self.manager.budget.taken(entry),
            )

    def _sample_stream(self) -> StreamSample:
        # What waits to be published is in no account yet.
        self.stream.flush()
        return StreamSample(
            served={(model, version): rows for model, version, rows in self.stream.served()},
            accounts=list(self.stream.accounts()),
            buffered_bytes=self.stream.buffered_bytes(),
            watching=len(self.live),
            sinks={worker.settings.name: worker.health for worker in self.sinks.workers},
        )

    def _stream_status(self) -> dict[str, object]:
        """What became of the predictions, for the admin port."""
        self.stream.flush()
        return {
            "served": [
                {"model": model, "version": version, "rows": rows}
                for model, version, rows in self.stream.served()
            ],
            "sinks": self.sinks.status(),
        }


def spare_the_collector() -> None:
    """Have the garbage collector look at what is new, and at that less often.

    What is there once the models are loaded stays; walking it takes tens of milliseconds, in which
    nobody is answered. Requests are freed by counting their references: what the collector is for
    comes of errors and of requests that go through the framework, and may wait for ten thousand
    objects.
    """
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def serve(config: Config, logs: Logging) -> int:
    """Run a server on an event loop of its own until it is told to stop; its exit code.

    Raises:
        StartupError: it could not start.
    """
    missing = [path for path in config.models if not path.exists()]
    if missing or not config.models:
        raise ConfigError(_no_models(missing))
    give_back_large_blocks()
    sys.setswitchinterval(config.switch_interval_us / 1e6)

    async def run() -> int:
        return await Gateway(config, logs).run()

    return uvloop.run(run())


def _no_models(missing: Sequence[object]) -> str:
    if missing:
        return f"there is no model repository at {', '.join(str(path) for path in missing)}"
    return (
        "no model repository is named: give a directory of models, as in "
        "'onnx-gateway serve MODELS', or set ONNX_GATEWAY_MODELS"
    )


def _bindable(port: int) -> int:
    """A configured port as the sockets know it: 0 binds any free one."""
    return 0 if port == Port.ANY else port


def _grpc_options(config: Config) -> GrpcOptions:
    tls = None
    if config.grpc_tls_certificate:
        tls = TlsFiles(config.grpc_tls_certificate, config.grpc_tls_key, config.grpc_tls_client_ca)
    return GrpcOptions(
        host=config.host,
        port=_bindable(config.grpc_port),
        unix_socket=config.grpc_unix_socket,
        tls=tls,
        max_message_bytes=config.max_request_bytes,
        max_metadata_bytes=config.max_header_bytes,
        max_concurrent_streams=config.grpc_max_concurrent_streams,
        keepalive_time_s=config.grpc_keepalive_time_s,
        keepalive_timeout_s=config.grpc_keepalive_timeout_s,
        read_timeout_s=config.read_timeout_s,
        access_log=config.access_log,
    )


def _address(name: str, port: int, config: Config) -> str:
    """Where a front listens, for people."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    if name == "admin":
        host = config.admin_host
    if name != "gRPC":
        return f"http://{host}:{port}" + {"metrics": "/metrics", "admin": "/docs"}.get(name, "")
    address = f"{host}:{port}"
    if config.grpc_unix_socket:
        address += f" and unix:{config.grpc_unix_socket}"
    if config.grpc_tls_client_ca:
        return address + " with TLS, for clients with a certificate"
    return address + (" with TLS" if config.grpc_tls_certificate else "")


def _leave(code: int) -> None:
    """End the process now, without waiting for its threads."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
