import argparse
from pathlib import Path

import pytest

from gateway.config import GROUPS, SETTINGS, Config, add_flags, load_config, service_links
from gateway.errors import ConfigError
from gateway.setting_types import Port


def configure(
    *arguments: str, environ: dict[str, str] | None = None, toml: Path | None = None
) -> Config:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    config_flag = ["--config", str(toml)] if toml else []
    return load_config(vars(parser.parse_args([*arguments, *config_flag])), environ or {})


def toml_file(directory: Path, text: str) -> Path:
    path = directory / "gateway.toml"
    path.write_text(text)
    return path


def test_defaults_listen_on_this_machine_alone_on_tritons_ports() -> None:
    config = configure()
    assert (config.host, config.http_port, config.grpc_port, config.metrics_port) == (
        "127.0.0.1", 8000, 8001, 8002,
    )  # fmt: skip


def test_a_flag_wins_over_a_variable_which_wins_over_the_file(tmp_path: Path) -> None:
    toml = toml_file(tmp_path, "http_port = 1\ngrpc_port = 1001\nmetrics_port = 1002\n")
    environ = {"ONNX_GATEWAY_HTTP_PORT": "2", "ONNX_GATEWAY_GRPC_PORT": "2001"}
    config = configure("--http-port", "3", environ=environ, toml=toml)
    assert (config.http_port, config.grpc_port, config.metrics_port) == (3, 2001, 1002)


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    toml = toml_file(tmp_path, 'host = "0.0.0.0"')
    assert configure(environ={"ONNX_GATEWAY_CONFIG": str(toml)}).host == "0.0.0.0"


def test_an_empty_variable_counts_as_unset() -> None:
    assert configure(environ={"ONNX_GATEWAY_HTTP_PORT": ""}).http_port == 8000


def test_variables_that_kubernetes_sets_for_a_service_are_no_settings() -> None:
    environ = {
        "ONNX_GATEWAY_PORT": "tcp://10.0.0.1:8000",
        "ONNX_GATEWAY_SERVICE_HOST": "10.0.0.1",
        "ONNX_GATEWAY_SERVICE_PORT": "8000",
    }
    assert configure(environ=environ) == Config()


@pytest.mark.parametrize("link", ["tcp://10.0.0.1:8003", "udp://[fd00::1]:53"])
def test_what_kubernetes_says_of_a_service_of_that_name_is_no_setting(link: str) -> None:
    environ = {"ONNX_GATEWAY_ADMIN_PORT": link, "ONNX_GATEWAY_HTTP_PORT": "8080"}
    assert configure(environ=environ) == Config(http_port=8080)
    assert service_links(environ) == {"ONNX_GATEWAY_ADMIN_PORT": link}


def test_a_port_that_somebody_has_set_to_an_address_is_still_refused() -> None:
    for environ in (
        {"ONNX_GATEWAY_ADMIN_PORT": "10.0.0.1:8003"},
        {"ONNX_GATEWAY_ADMIN_PORT": "http://10.0.0.1:8003"},
    ):
        with pytest.raises(ConfigError, match="ONNX_GATEWAY_ADMIN_PORT: expected a port"):
            configure(environ=environ)
    with pytest.raises(ConfigError, match="--admin-port: expected a port"):
        configure("--admin-port", "tcp://10.0.0.1:8003")


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MiB", 64 << 20), ("1.5 GiB", 3 << 29), ("2m", 2 << 20), ("10kB", 10_000), ("4096", 4096)],
)
def test_sizes_take_suffixes(text: str, size: int) -> None:
    assert configure("--max-request-bytes", text).max_request_bytes == size


def test_any_asks_for_a_free_port() -> None:
    assert configure("--http-port", "any").http_port == Port.ANY


def test_booleans_have_a_flag_for_each_side() -> None:
    assert configure("--access-log").access_log is True
    assert configure("--no-strict-readiness").strict_readiness is False
    assert configure(environ={"ONNX_GATEWAY_ACCESS_LOG": "yes"}).access_log is True


def test_several_repositories_come_as_arguments_variable_or_list(tmp_path: Path) -> None:
    assert configure("a", "b").models == (Path("a"), Path("b"))
    assert configure(environ={"ONNX_GATEWAY_MODELS": "a:b"}).models == (Path("a"), Path("b"))
    toml = toml_file(tmp_path, 'models = ["a", "/b"]')
    assert configure(toml=toml).models == (tmp_path / "a", Path("/b"))


def test_a_path_in_the_file_starts_where_the_file_is(tmp_path: Path) -> None:
    toml = toml_file(tmp_path, 'grpc_unix_socket = "run/grpc.sock"')
    assert configure(toml=toml).grpc_unix_socket == str(tmp_path / "run/grpc.sock")
    assert configure("--grpc-unix-socket", "grpc.sock").grpc_unix_socket == "grpc.sock"
    toml = toml_file(tmp_path, 'grpc_unix_socket = "~/grpc.sock"')
    assert configure(toml=toml).grpc_unix_socket == str(Path.home() / "grpc.sock")


def test_a_client_authority_may_go_with_a_certificate_and_its_key() -> None:
    pair = ("--grpc-tls-certificate", "c.pem", "--grpc-tls-key", "k.pem")
    config = configure(*pair, "--grpc-tls-client-ca", "a.pem")
    assert (config.grpc_tls_certificate, config.grpc_tls_key) == ("c.pem", "k.pem")
    assert config.grpc_tls_client_ca == "a.pem"
    assert configure(*pair).grpc_tls_client_ca == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--http-port", "70000"], r"--http-port: expected a port from 1 to 65535.*got \"70000\""),
        (["--http-port", "web"], r"--http-port: expected a port.*got \"web\""),
        (["--log-level", "loud"], r"--log-level: expected \"debug\" or \"info\".*got \"loud\""),
        (["--grace-period-s", "-1"], r"--grace-period-s: expected a number from 0 to 86400"),
        (["--grace-period-s", "nan"], r"--grace-period-s: expected a number"),
        (["--load-threads", "1.5"], r"--load-threads: expected a whole number from 1 to 64"),
        (["--max-request-bytes", "3 pigs"], r"--max-request-bytes: expected a size such as"),
        (["--host", " "], r"--host: expected text"),
        (["--http-port", "9", "--grpc-port", "9"], r"http_port and grpc_port are both 9"),
        (["--http-port", "0", "--grpc-port", "0"], r"nothing would be served"),
        (
            ["--grpc-tls-certificate", "c.pem"],
            r"grpc_tls_certificate is set and grpc_tls_key is not: TLS needs both",
        ),
        (
            ["--grpc-tls-key", "k.pem"],
            r"grpc_tls_key is set and grpc_tls_certificate is not: TLS needs both",
        ),
        (
            ["--grpc-tls-client-ca", "a.pem"],
            r"grpc_tls_client_ca is set, .*grpc_tls_certificate and grpc_tls_key too",
        ),
        (
            ["--grpc-unix-socket", "g.sock", "--grpc-port", "0"],
            r"grpc_unix_socket is g\.sock and grpc_port is 0 \(off\)",
        ),
        (["--grpc-impl", "other"], r"--grpc-impl: expected \"native\" or \"grpcio\""),
        (["--grpc-max-concurrent-streams", "0"], r"expected a whole number from 1 to 1000000"),
        (["--load-model", "m"], r"load_models names m, which needs model_control_mode"),
    ],
)
def test_a_wrong_flag_is_told_with_what_is_allowed(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(*arguments)


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^ONNX_GATEWAY_ACCESS_LOG: expected true or false"):
        configure(environ={"ONNX_GATEWAY_ACCESS_LOG": "maybe"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http_prot = 1", r"gateway\.toml: there is no setting \"http_prot\"; did you mean"),
        ("colour = 1", r"there is no setting \"colour\"; known are models, "),
        ('access_log = "maybe"', r"gateway\.toml: access_log: expected true or false"),
        ("http_port = true", r"gateway\.toml: http_port: expected a port"),
        ("models = 3", r"gateway\.toml: models: expected a list of paths; got 3"),
        ("[limits]\nx = 1", r"there is no setting \"limits\""),
        ("http_port =\nx = 1", r"gateway\.toml is not TOML: .*line 1"),
    ],
)
def test_a_wrong_file_is_told_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(toml=toml_file(tmp_path, text))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the settings file .*nowhere\.toml"):
        configure(toml=tmp_path / "nowhere.toml")


def test_help_shows_every_setting_with_its_variable_in_its_group() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    text = parser.format_help()
    for name, setting in SETTINGS.items():
        assert f"[ONNX_GATEWAY_{name.upper()}]" in text
        assert setting.group in GROUPS
    for group in GROUPS:
        assert f"{group}:" in text
