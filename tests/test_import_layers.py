"""The rules of the layers, held over every import of the package.

front, control, monitor -> dispatch -> serving -> the foundation; each part may use what stands
right of it and itself. The core imports nothing of ``gateway``.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway

ROOT = Path(gateway.__file__).parent
CORE = ROOT.parent / "_native"

FOUNDATION = frozenset(
    {
        "types",
        "errors",
        "config",
        "monitoring_file",
        "retry",
        "setting_types",
        "tables",
        "clock",
        "metrics",
        "rollout_metrics",
        "stream_metrics",
        "label_metrics",
        "alert_metrics",
        "drift_metrics",
        "logs",
        "protos",
        "__version__",
    }
)
#: What each part may import of ``gateway`` besides itself. Whoever composes may import anything.
ALLOWED = {
    "foundation": FOUNDATION,
    "evidence": FOUNDATION,
    "serving": FOUNDATION | {"_native"},
    "dispatch": FOUNDATION | {"serving"},
    "front": FOUNDATION | {"serving", "dispatch", "_native"},
    "control": FOUNDATION | {"evidence", "serving", "dispatch"},
    "stream": FOUNDATION | {"serving", "_native"},
    "monitor": FOUNDATION | {"evidence", "serving", "stream", "_native"},
    "commands": FOUNDATION | {"control"},
    "integrations": FOUNDATION | {"serving", "dispatch", "monitor", "control"},
}
COMPOSERS = frozenset({"app", "cli", "__main__", "__init__"})

#: Outside packages that belong to one place, as paths under ``gateway/``.
HOMES = {
    "onnxruntime": ("serving/onnx/",),
    "tomllib": (
        "config.py",
        "monitoring_file.py",
        "serving/model_config.py",
        "monitor/monitor_file.py",
        "control/declaration.py",
        "serving/lineage.py",
        "front/admin_request.py",
    ),
    "grpc": ("front/grpc_grpcio.py",),
    "pyarrow": ("stream/sinks/parquet.py", "monitor/"),
    "confluent_kafka": ("stream/sinks/kafka.py",),
    "nats": ("stream/sinks/nats.py",),
    "grpc_health": ("front/",),
    "grpc_reflection": ("front/",),
    "starlette": ("front/",),
    "uvicorn": ("front/",),
    "http": ("front/", "commands/admin_client.py", "monitor/http_post.py"),
    "uvloop": ("app.py",),
    "argparse": ("cli.py", "commands/", "config.py", "setting_types.py"),
}


def sources() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if "_native" not in path.parts)


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    if len(relative.parts) > 1:
        return relative.parts[0]
    return "composer" if path.stem in COMPOSERS else "foundation"


def imports(path: Path, text: str) -> Iterator[str]:
    """The full name of everything that the file ``path`` of that text imports, anywhere in it."""
    package = ["gateway", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def upward_imports(path: Path, text: str) -> list[str]:
    part = part_of(path)
    targets = [name.split(".")[1] for name in imports(path, text) if name.startswith("gateway.")]
    allowed = ALLOWED.get(part, frozenset(targets))
    return [target for target in targets if target not in allowed and target != part]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down_only(path: Path) -> None:
    assert upward_imports(path, path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("place", "line", "upward"),
    [
        ("front/x.py", "from gateway.control.manager import Manager", ["control"]),
        ("front/x.py", "from ..control import manager", ["control"]),
        ("front/x.py", "def f():\n    import gateway.control.manager", ["control"]),
        ("serving/onnx/x.py", "from gateway.dispatch import route", ["dispatch"]),
        ("serving/onnx/x.py", "from ..signature import Signature", []),
        ("control/x.py", "from gateway._native import queue", ["_native"]),
        ("types.py", "import gateway.serving", ["serving"]),
        ("app.py", "import gateway.control.manager", []),
    ],
)
def test_an_import_upward_is_found(place: str, line: str, upward: list[str]) -> None:
    assert upward_imports(ROOT / place, line) == upward


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_outside_packages_stay_in_their_place(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    for name in imports(path, path.read_text("utf-8")):
        homes = HOMES.get(name.partition(".")[0])
        assert homes is None or place.startswith(homes), f"{place} must not import {name}"


def test_the_environment_is_read_in_the_settings_alone() -> None:
    for path in sources():
        names = {
            node.attr if isinstance(node, ast.Attribute) else node.id
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, (ast.Attribute, ast.Name))
        }
        if names & {"environ", "getenv"}:
            assert path.relative_to(ROOT).as_posix() == "config.py", path


def test_the_core_imports_nothing_of_the_package() -> None:
    pattern = re.compile(r"^\s*(?:from|import|cimport)\s+gateway(?!\._native)[\w.]*", re.MULTILINE)
    for suffix in ("pyx", "pxd", "pyi"):
        for path in CORE.glob(f"*.{suffix}"):
            found = pattern.search(path.read_text("utf-8"))
            assert found is None, f"{path.name}: {found and found[0].strip()}"
