"""What the command tells, and the codes it ends with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import __version__
from tests.repository import ModelDirectory, rows


def run(
    *arguments: str, environment: dict[str, str] | None = None, before: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, after the statements ``before``."""
    code = f"import sys\n{before}\nfrom gateway.cli import main\nsys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )


#: Makes the import of a module fail, as where it is not there.
WITHOUT_CORE = """
import importlib.abc
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.startswith("gateway._native."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""
WITHOUT_RUNTIME = "sys.modules['onnxruntime'] = None"


@pytest.fixture
def models(tmp_path: Path) -> ModelDirectory:
    return ModelDirectory(tmp_path)


def test_version_is_one_line() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"onnx-gateway {__version__}\n")


def test_the_version_command_names_the_parts() -> None:
    done = run("version")
    assert done.returncode == 0
    assert "ONNX Runtime 1." in done.stdout
    assert "CPUExecutionProvider" in done.stdout


def test_without_a_command_the_help_is_shown() -> None:
    done = run()
    assert done.returncode == 2
    assert all(command in done.stdout for command in ("serve", "check", "version"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve"], "no model repository is named: give a directory of models"),
        (["check"], "no model repository is named"),
        (["serve", "/nowhere/at/all"], "there is no model repository at /nowhere/at/all"),
        (["check", "/nowhere/at/all"], "the model repository /nowhere/at/all cannot be read"),
        (["serve", "m", "--http-port", "x"], "--http-port: expected a port"),
        (["serve", "m", "--config", "no.toml"], "cannot read the settings file no.toml"),
    ],
)
def test_wrong_settings_end_with_one_message_and_code_2(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"onnx-gateway: {message}")
    assert "Traceback" not in done.stderr


def test_a_missing_core_is_told_with_the_command_that_makes_it(models: ModelDirectory) -> None:
    models.add("rows", rows)
    done = run("serve", str(models.path), before=WITHOUT_CORE)
    assert done.returncode == 1
    assert "the compiled core is not there" in done.stderr
    assert "setup.py build_ext --inplace" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_runtime_is_told_with_both_ways_to_install_it(models: ModelDirectory) -> None:
    models.add("rows", rows)
    for command in ("serve", "check"):
        done = run(command, str(models.path), before=WITHOUT_RUNTIME)
        assert done.returncode == 1
        assert "pip install onnx-gateway[cpu]" in done.stderr
        assert "pip install onnx-gateway[gpu]" in done.stderr
        assert "Traceback" not in done.stderr


def test_check_tells_what_would_be_served(models: ModelDirectory) -> None:
    models.add("rows", rows)
    done = run("check", str(models.path))
    assert done.returncode == 0, done.stderr
    for part in ("rows: ok", "x  FP32 [-1, 4]", "y  FP32 [-1, 5]", "rows together"):
        assert part in done.stdout
    assert done.stdout.endswith("1 of 1 models can be served whole\n")


def test_check_tells_what_would_be_refused_and_why(models: ModelDirectory) -> None:
    models.add("rows", rows)
    models.add_broken("broken")
    (models.path / "empty").mkdir()
    done = run("check", str(models.path), "--json")
    assert done.returncode == 1
    reports = {report["name"]: report for report in json.loads(done.stdout)}
    assert [name for name, report in reports.items() if not report["problems"]] == ["rows"]
    assert "not an ONNX model" in reports["broken"]["problems"][0]
    assert "holds no model" in reports["empty"]["problems"][0]
    (version,) = reports["rows"]["versions"]
    assert version["inputs"][0]["shape"] == [-1, 4]
    assert version["max_batch_size"] > 1


def test_check_writes_nothing_beside_its_document(models: ModelDirectory) -> None:
    models.add("rows", rows)
    done = run("check", str(models.path), "--json")
    assert done.stderr == ""
    json.loads(done.stdout)


def test_check_of_an_empty_repository_fails(tmp_path: Path) -> None:
    done = run("check", str(tmp_path))
    assert done.returncode == 1
    assert "0 of 0 models" in done.stdout


def test_what_kubernetes_says_of_a_service_is_passed_over_with_a_line(
    models: ModelDirectory,
) -> None:
    link = {"ONNX_GATEWAY_ADMIN_PORT": "tcp://10.0.0.1:8003"}
    # An address for documentation, which no machine has: the start ends once it is to listen.
    nowhere = ("serve", str(models.path), "--host", "203.0.113.1")
    done = run(*nowhere, environment={**os.environ, **link})
    assert done.returncode == 1, done.stderr
    assert "cannot listen on 203.0.113.1" in done.stderr
    assert "ONNX_GATEWAY_ADMIN_PORT=tcp://10.0.0.1:8003 is passed over" in done.stderr
