"""The settings of the server: one declaration each, read from four places.

A setting's value is the first one found of: its command line flag, its environment variable
(``ONNX_GATEWAY_<NAME>``), its key in the TOML file (``--config FILE`` or ``ONNX_GATEWAY_CONFIG``),
its default. The field of ``Config`` is the only place that knows a setting's name, type, default,
group and help; the flags, the variables, the file's keys and ``--help`` follow from it.

Every wrong value ends in a ``ConfigError`` that names the source, what is allowed and what was
given. Unknown keys of the file are errors too. Unknown variables are not: Kubernetes itself sets
``ONNX_GATEWAY_SERVICE_HOST``, ``ONNX_GATEWAY_PORT`` and the like for a service of that name. For
one that is called ``onnx-gateway-admin`` it sets ``ONNX_GATEWAY_ADMIN_PORT`` to
``tcp://10.0.0.1:8003``: the variable of a port is passed over where it has that form.
"""

import argparse
import dataclasses
import difflib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.errors import ConfigError
from gateway.setting_types import (
    Boolean,
    Choice,
    FilePath,
    Names,
    Number,
    Paths,
    Port,
    SettingType,
    Size,
    Text,
)

ENVIRONMENT_PREFIX: Final = "ONNX_GATEWAY_"

#: What Kubernetes puts into ``<SERVICE>_PORT`` for each service of its namespace.
_SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://\S+:\d+")

#: The groups of ``--help``, in its order.
GROUPS: Final[tuple[str, ...]] = (
    "Models",
    "Rollouts",
    "Listening",
    "Limits",
    "Execution",
    "Monitoring",
    "Shutdown",
    "Logging",
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known about a setting besides its name and default.

    ``flag`` is the flag's name without dashes where it is not the setting's own name;
    ``positional`` makes it the command's arguments instead.
    """

    type: SettingType
    group: str
    help: str
    flag: str = ""
    positional: bool = False


def _setting(default: Any, type: SettingType, group: str, help: str, **more: Any) -> Any:
    return dataclasses.field(
        default=default, metadata={"setting": Setting(type, group, help, **more)}
    )


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of a server, checked. Times and sizes are in the unit that the name ends with.

    A port is 0 where it is turned off and ``Port.ANY`` where any free one will do.
    """

    models: tuple[Path, ...] = _setting(
        (), Paths(), "Models", "model repositories: directories of models", positional=True
    )
    model_control_mode: str = _setting(
        "none",
        Choice("none", "poll", "explicit"),
        "Models",
        "none: load every model at start; poll: that, and follow what changes in the "
        "repositories; explicit: load only those named by --load-model; the repository API loads "
        "and unloads in any of them",
    )
    load_models: tuple[str, ...] = _setting(
        (),
        Names(),
        "Models",
        "a model to load at start in explicit mode, * for all; may be repeated",
        flag="load-model",
    )
    strict_readiness: bool = _setting(
        True,
        Boolean(),
        "Models",
        "ready only when every model that should be loaded serves; otherwise as soon as loading "
        "has ended, whatever failed",
    )
    exit_on_error: bool = _setting(
        False, Boolean(), "Models", "end with exit code 1 when a model fails to load at start"
    )
    load_threads: int = _setting(
        1, Number(int, 1, 64), "Models", "models that are loaded at the same time"
    )

    repository_poll_s: float = _setting(
        15.0,
        Number(float, 0.1, 86_400),
        "Models",
        "seconds between two looks at the repositories in poll mode; a change is taken up once two "
        "looks have found the same files",
    )

    state_dir: str = _setting(
        "",
        FilePath(),
        "Rollouts",
        "directory of what is to survive a restart: which versions serve, labels, canaries, "
        "shadows, and the journal of every change; without it they last as long as the process",
    )
    keep_previous: int = _setting(
        1,
        Number(int, 0, 100),
        "Rollouts",
        "versions that stay loaded for a rollback after another one has taken their place",
    )
    memory_budget: int = _setting(
        0,
        Size(0, 1 << 50),
        "Rollouts",
        "host memory that loaded versions may take together; a load that would not fit is refused "
        "before it starts; 0 for what the machine has available",
    )

    host: str = _setting("127.0.0.1", Text(), "Listening", "address to listen on")
    http_port: int = _setting(8000, Port(), "Listening", "port of HTTP")
    grpc_port: int = _setting(8001, Port(), "Listening", "port of gRPC")
    metrics_port: int = _setting(
        8002, Port(), "Listening", "port of Prometheus metrics alone (HTTP has /metrics too)"
    )
    admin_port: int = _setting(
        8003, Port(), "Listening", "port of the admin API: promote, canary, shadow, rollback"
    )
    admin_host: str = _setting(
        "127.0.0.1",
        Text(),
        "Listening",
        "address that the admin API listens on; it asks nobody for a password",
    )
    admin_allowed_hosts: tuple[str, ...] = _setting(
        (),
        Names(),
        "Listening",
        "a further name or address that clients may ask the admin API by; may be repeated",
        flag="admin-allowed-host",
    )
    grpc_impl: str = _setting(
        "native", Choice("native", "grpcio"), "Listening", "implementation of the gRPC server"
    )
    grpc_unix_socket: str = _setting(
        "", FilePath(), "Listening", "unix socket on which gRPC is served besides its port"
    )
    grpc_tls_certificate: str = _setting(
        "",
        FilePath(),
        "Listening",
        "PEM file of the certificate, and of those that signed it, that gRPC speaks TLS with",
    )
    grpc_tls_key: str = _setting(
        "", FilePath(), "Listening", "PEM file of that certificate's private key"
    )
    grpc_tls_client_ca: str = _setting(
        "",
        FilePath(),
        "Listening",
        "PEM file of certificates; a gRPC client must have one that they have signed",
    )

    grpc_prediction_stream: bool = _setting(
        False,
        Boolean(),
        "Listening",
        "let gRPC clients watch the predictions of all callers "
        "(onnx_gateway.v1.PredictionStream); use it with --grpc-tls-client-ca",
    )

    max_request_bytes: int = _setting(
        256 << 20, Size(1024, (1 << 31) - 1), "Limits", "largest request body, decompressed"
    )
    max_inflight_requests: int = _setting(
        65_536,
        Number(int, 1, 10_000_000),
        "Limits",
        "inference requests inside the server at once; more are refused",
    )
    max_stream_subscribers: int = _setting(
        8,
        Number(int, 0, 1000),
        "Limits",
        "clients that watch predictions at once, over the admin API and gRPC; each has a buffer "
        "of 4 MiB",
    )
    keepalive_timeout_s: float = _setting(
        75.0,
        Number(float, 0, 86_400),
        "Limits",
        "seconds after which an idle HTTP connection is closed",
    )
    read_timeout_s: float = _setting(
        60.0,
        Number(float, 0.001, 86_400),
        "Limits",
        "seconds that the head of a request may take, and that its body may pause; over gRPC, "
        "where grpcio has no such limit, that a message may pause once it has begun",
    )
    max_header_bytes: int = _setting(
        64 << 10,
        Size(1024, 1 << 24),
        "Limits",
        "largest request line and headers over HTTP, largest metadata over gRPC",
    )
    grpc_max_concurrent_streams: int = _setting(
        1024, Number(int, 1, 1_000_000), "Limits", "calls that one gRPC connection may have open"
    )
    grpc_keepalive_time_s: float = _setting(
        7200.0,
        Number(float, 0.001, 1_000_000),
        "Limits",
        "seconds after which a silent gRPC connection is pinged",
    )
    grpc_keepalive_timeout_s: float = _setting(
        20.0,
        Number(float, 0.001, 1_000_000),
        "Limits",
        "seconds that the answer to that ping may take before the connection is closed",
    )

    inline_threshold_us: int = _setting(
        500,
        Number(int, 0, 1_000_000),
        "Execution",
        "a model whose largest batch takes less runs on the event loop, without a thread of its "
        "own; 0 gives every model its threads",
    )
    switch_interval_us: int = _setting(
        500,
        Number(int, 10, 100_000),
        "Execution",
        "how long a thread keeps the interpreter while another one waits for it",
    )

    monitoring: str = _setting(
        "",
        FilePath(),
        "Monitoring",
        "TOML file of where predictions are sent, who is alerted and what is set off",
    )
    sink_flush_s: float = _setting(
        5.0,
        Number(float, 0, 3_600),
        "Monitoring",
        "seconds at the end that sinks get to deliver what waits for them",
    )

    grace_period_s: float = _setting(
        30.0, Number(float, 0, 86_400), "Shutdown", "seconds that requests get to finish at the end"
    )
    drain_delay_s: float = _setting(
        0.0,
        Number(float, 0, 3_600),
        "Shutdown",
        "seconds between readiness going false and new requests being refused, for load balancers "
        "to look away",
    )

    log_level: str = _setting(
        "info", Choice("debug", "info", "warning", "error"), "Logging", "least level that is logged"
    )
    log_format: str = _setting(
        "auto",
        Choice("auto", "human", "json"),
        "Logging",
        "form of a log line on stderr; auto is human on a terminal and json elsewhere",
    )
    access_log: bool = _setting(False, Boolean(), "Logging", "log one line for each request")

    def __post_init__(self) -> None:
        self._check_ports()
        self._check_grpc_tls()
        if self.load_models and self.model_control_mode != "explicit":
            raise ConfigError(
                f"load_models names {', '.join(self.load_models)}, which needs "
                f'model_control_mode "explicit"; it is "{self.model_control_mode}"'
            )

    def _check_ports(self) -> None:
        taken: dict[int, str] = {}
        for name in ("http_port", "grpc_port", "metrics_port", "admin_port"):
            port = getattr(self, name)
            if port > 0 and taken.setdefault(port, name) != name:
                raise ConfigError(
                    f"{taken[port]} and {name} are both {port}: give each server a port of its "
                    f'own, 0 to turn it off or "any" for a free one'
                )
        if self.http_port == 0 and self.grpc_port == 0:
            raise ConfigError("http_port and grpc_port are both 0 (off): nothing would be served")
        if self.grpc_unix_socket and self.grpc_port == 0:
            raise ConfigError(
                f"grpc_unix_socket is {self.grpc_unix_socket} and grpc_port is 0 (off): the socket "
                "is served besides the port; give gRPC a port"
            )

    def _check_grpc_tls(self) -> None:
        if bool(self.grpc_tls_certificate) != bool(self.grpc_tls_key):
            given, missing = "grpc_tls_certificate", "grpc_tls_key"
            if self.grpc_tls_key:
                given, missing = missing, given
            raise ConfigError(f"{given} is set and {missing} is not: TLS needs both")
        if self.grpc_tls_client_ca and not self.grpc_tls_certificate:
            raise ConfigError(
                "grpc_tls_client_ca is set, which needs TLS: set grpc_tls_certificate and "
                "grpc_tls_key too"
            )


#: Every setting by its name, in the order of the declaration.
SETTINGS: Final[dict[str, Setting]] = {
    field.name: field.metadata["setting"] for field in dataclasses.fields(Config)
}


def add_flags(parser: argparse.ArgumentParser, names: Sequence[str] = tuple(SETTINGS)) -> None:
    """Add ``--config`` and the flags of the named settings to ``parser``, in their groups."""
    used = {SETTINGS[name].group for name in names}
    groups = {group: parser.add_argument_group(group) for group in GROUPS if group in used}
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"TOML file of settings, keys as the variables' names in lower case "
        f"[{ENVIRONMENT_PREFIX}CONFIG]",
    )
    for name in names:
        setting = SETTINGS[name]
        default = setting.type.show(defaults[name])
        text = f"{setting.help} [{_variable(name)}]" + (f" (default: {default})" if default else "")
        text = text.replace("%", "%%")
        if setting.positional:
            groups[setting.group].add_argument(
                name, nargs="*", default=argparse.SUPPRESS, metavar=name.upper(), help=text
            )
            continue
        groups[setting.group].add_argument(
            _flag(name),
            dest=name,
            default=argparse.SUPPRESS,
            help=text,
            **setting.type.argparse_options(),
        )


def load_config(flags: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Config:
    """Make the ``Config`` of parsed flags, an environment and the TOML file that either names.

    Args:
        flags: what ``argparse`` made of ``add_flags``: given settings only, by name.
        environ: the environment; the process's own where ``None``.

    Raises:
        ConfigError: a value, a key or the file itself is wrong.
    """
    environ = os.environ if environ is None else environ
    values = _read_file(flags.get("config") or environ.get(f"{ENVIRONMENT_PREFIX}CONFIG") or "")
    passed_over = service_links(environ)
    for name, setting in SETTINGS.items():
        variable = _variable(name)
        if (text := environ.get(variable, "")) != "" and variable not in passed_over:
            values[name] = setting.type.parse(text, variable)
        if name in flags and (not setting.positional or flags[name]):
            source = name.upper() if setting.positional else _flag(name)
            values[name] = setting.type.parse(flags[name], source)
    return Config(**values)


def service_links(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of ports that are Kubernetes' own, not settings, with what they say."""
    environ = os.environ if environ is None else environ
    ports = (_variable(name) for name, s in SETTINGS.items() if isinstance(s.type, Port))
    found = {variable: environ.get(variable, "") for variable in ports}
    return {variable: text for variable, text in found.items() if _SERVICE_LINK.fullmatch(text)}


def environment(name: str) -> str:
    """The variable ``ONNX_GATEWAY_<name>``, for what is no setting of a server; else ``""``."""
    return os.environ.get(ENVIRONMENT_PREFIX + name, "")


def variable(name: str) -> str:
    """The variable ``name``, which some file refers to; ``""`` where it is not set."""
    return os.environ.get(name, "")


def process_environment() -> dict[str, str]:
    """All variables, for a program that is started."""
    return dict(os.environ)


def _read_file(path: str) -> dict[str, Any]:
    """The settings of the TOML file ``path``, parsed; nothing where ``path`` is empty."""
    if not path:
        return {}
    try:
        table = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file {path} is not TOML: {error}") from None
    values = {}
    for key, value in table.items():
        if key not in SETTINGS:
            near = difflib.get_close_matches(key, SETTINGS, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(SETTINGS)}"
            raise ConfigError(f'{path}: there is no setting "{key}"; {hint}')
        parsed = SETTINGS[key].type.parse(value, f"{path}: {key}")
        # A path in a file means the same wherever the server is started from.
        if isinstance(SETTINGS[key].type, Paths):
            parsed = tuple(Path(path).parent / entry for entry in parsed)
        elif isinstance(SETTINGS[key].type, FilePath):
            parsed = str(Path(path).parent / parsed)
        values[key] = parsed
    return values


def _variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


def _flag(name: str) -> str:
    return "--" + (SETTINGS[name].flag or name.replace("_", "-"))
