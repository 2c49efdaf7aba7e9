"""``model.toml`` and ``config.pbtxt``: what is honoured, and what is named as not honoured."""

from pathlib import Path

import pytest

from gateway.errors import ConfigError, GatewayError, LoadError
from gateway.serving.model_config import read_settings
from gateway.serving.settings import (
    ModelSettings,
    TensorSettings,
    ValidationSettings,
    VersionPolicy,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "digits"
    path.mkdir()
    return path


def toml(folder: Path, text: str) -> ModelSettings:
    (folder / "model.toml").write_text(text)
    return read_settings(folder)


def triton(folder: Path, text: str) -> ModelSettings:
    (folder / "config.pbtxt").write_text(text)
    return read_settings(folder)


def test_a_model_needs_no_settings(folder: Path) -> None:
    assert read_settings(folder) == ModelSettings()


def test_every_field_can_be_set_in_toml(folder: Path) -> None:
    settings = toml(
        folder,
        """
        max_batch_size = 16
        latency_objective_ms = 5
        max_queue_delay_us = 100
        preferred_batch_size = [4, 8]
        max_queue_size = 10
        default_timeout_us = 1000
        priority_levels = 3
        default_priority_level = 2
        allow_slicing = false
        instances = 2
        gpus = [0, 1]
        providers = ["CPUExecutionProvider"]
        intra_op_threads = 2
        inline = false
        probe = false
        warmup = "rows.npz"
        version_policy = { specific = ["1", 2] }
        swap_policy = "in_place"
        model_filename = "net.onnx"
        [validation]
        golden = true
        require_golden = true
        max_latency_ratio = 1.5
        max_memory_bytes = "512MB"
        require_same_signature = true
        [provider_options.CUDAExecutionProvider]
        use_tf32 = false
        gpu_mem_limit = 1024
        [inputs.state]
        batch_axis = 1
        shape = [2, -1, 128]
        datatype = "FP32"
        [outputs.y]
        labels = ["a", "b"]
        """,
    )
    assert settings == ModelSettings(
        max_batch_size=16,
        latency_objective_ms=5.0,
        max_queue_delay_us=100,
        preferred_batch_size=(4, 8),
        max_queue_size=10,
        default_timeout_us=1000,
        priority_levels=3,
        default_priority_level=2,
        allow_slicing=False,
        instances=2,
        gpus=(0, 1),
        providers=("CPUExecutionProvider",),
        provider_options={"CUDAExecutionProvider": {"use_tf32": "0", "gpu_mem_limit": "1024"}},
        intra_op_threads=2,
        inline=False,
        probe=False,
        warmup=folder / "rows.npz",
        version_policy=VersionPolicy(latest=None, specific=("1", "2")),
        swap_policy="in_place",
        model_filename="net.onnx",
        validation=ValidationSettings(
            golden=True,
            require_golden=True,
            max_latency_ratio=1.5,
            max_memory_bytes=512_000_000,
            require_same_signature=True,
        ),
        inputs={"state": TensorSettings(batch_axis=1, shape=(2, -1, 128), datatype="FP32")},
        outputs={"y": TensorSettings(labels=("a", "b"))},
        source=folder / "model.toml",
    )


def test_each_field_of_the_settings_has_a_key() -> None:
    from gateway.serving.model_config import _FIELDS

    assert set(_FIELDS) == set(ModelSettings.__slots__) - {"source", "ignored", "golden"}


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ('version_policy = "all"', VersionPolicy(latest=None)),
        ("version_policy = { latest = 2 }", VersionPolicy(latest=2)),
    ],
)
def test_version_policies(folder: Path, text: str, policy: VersionPolicy) -> None:
    assert toml(folder, text).version_policy == policy


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("max_batchsize = 1", "unknown key 'max_batchsize'; did you mean 'max_batch_size'?"),
        ("zzz = 1", "unknown key 'zzz'; known are max_batch_size, "),
        (
            "[inputs.x]\nbatchaxis = 1",
            "inputs.x.unknown key 'batchaxis'; did you mean 'batch_axis'?",
        ),
        ("max_batch_size = -1", "max_batch_size must be an integer of at least 0, not -1"),
        ("instances = true", "instances must be an integer of at least 1, not True"),
        ("inline = 1", "inline must be true or false, not 1"),
        ("latency_objective_ms = 'fast'", "must be a finite number of at least 0, not 'fast'"),
        ("latency_objective_ms = inf", "must be a finite number of at least 0, not inf"),
        ("providers = 'CPU'", "providers must be a list, not 'CPU'"),
        ("providers = ['']", "providers[0] must be text, not ''"),
        ("inputs = 3", "inputs must be a table, not 3"),
        ("inputs = { x = 3 }", "inputs.x must be a table, not 3"),
        ("[provider_options.X]\na = []", "must be text, a number or a boolean, not []"),
        ("version_policy = 'some'", 'must be "all", { latest = N }'),
        ("version_policy = { specific = [] }", "must be a list of at least one version"),
        ("swap_policy = 'fast'", 'must be "availability" or "in_place", not \'fast\''),
        ("validation = true", "validation must be a table, not True"),
        ("[validation]\nmax_memory_bytes = 'lots'", "validation.max_memory_bytes: expected a size"),
        ("[validation]\nmax_latency = 2", "did you mean 'max_latency_ratio'?"),
        (
            "[validation]\ngolden = false\nrequire_golden = true",
            "validation: require_golden asks for golden requests and golden = false ignores them",
        ),
        ("max_batch_size = ", "is not valid TOML"),
    ],
)
def test_what_is_wrong_in_toml_is_named(folder: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        toml(folder, text)
    assert str(folder / "model.toml") in str(caught.value)
    assert complaint in str(caught.value)


def test_what_triton_honours_is_honoured(folder: Path) -> None:
    (folder / "labels.txt").write_text("zero\none\n\n")
    settings = triton(
        folder,
        """
        name: "digits"
        platform: "onnxruntime_onnx"
        backend: "onnxruntime"
        max_batch_size: 8
        default_model_filename: "net.onnx"
        version_policy { latest { num_versions: 2 } }
        input [ { name: "x" data_type: TYPE_FP32 dims: [ 64 ] } ]
        output [
          { name: "label" data_type: TYPE_STRING dims: [ 1 ] reshape { shape: [ ] } },
          { name: "p" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt" }
        ]
        dynamic_batching {
          preferred_batch_size: [ 4, 8 ]
          max_queue_delay_microseconds: 100
          priority_levels: 3
          default_priority_level: 2
          default_queue_policy {
            max_queue_size: 5 default_timeout_microseconds: 1000 allow_timeout_override: true
          }
        }
        instance_group [ { kind: KIND_CPU count: 2 } ]
        parameters { key: "intra_op_thread_count" value { string_value: "3" } }
        """,
    )
    assert settings == ModelSettings(
        max_batch_size=8,
        max_queue_delay_us=100,
        preferred_batch_size=(4, 8),
        max_queue_size=5,
        default_timeout_us=1000,
        priority_levels=3,
        default_priority_level=2,
        instances=2,
        providers=("CPUExecutionProvider",),
        intra_op_threads=3,
        version_policy=VersionPolicy(latest=2),
        model_filename="net.onnx",
        inputs={"x": TensorSettings(shape=(-1, 64), datatype="FP32")},
        outputs={
            "label": TensorSettings(datatype="BYTES"),
            "p": TensorSettings(labels=("zero", "one"), shape=(-1, 2), datatype="FP32"),
        },
        source=folder / "config.pbtxt",
        ignored=("output.reshape",),
    )


def test_every_other_field_is_named_once(folder: Path) -> None:
    settings = triton(
        folder,
        """
        dynamic_batching { preserve_ordering: true }
        response_cache { enable: true }
        optimization { graph { level: 1 } cuda { graphs: true } }
        model_warmup [ { name: "a" batch_size: 1 }, { name: "b" batch_size: 2 } ]
        metric_tags { key: "team" value: "vision" }
        parameters { key: "execution_mode" value { string_value: "1" } }
        """,
    )
    assert sorted(settings.ignored) == [
        "dynamic_batching.preserve_ordering",
        "metric_tags.team",
        "model_warmup.batch_size",
        "model_warmup.name",
        "optimization.cuda.graphs",
        "optimization.graph.level",
        "parameters.execution_mode",
        "response_cache.enable",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("dynamic_batching { }", None),
        ("max_batch_size: 0", 0),
        ("# max_batch_size: 0", None),
        ("max_batch_size: 4", 4),
        ('input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 4 ] } ]', 0),
    ],
)
def test_a_batch_size_that_is_left_open_is_measured(
    folder: Path, text: str, expected: int | None
) -> None:
    settings = triton(folder, text)
    assert settings.max_batch_size == expected
    assert settings.ignored == ()


@pytest.mark.parametrize(
    ("groups", "instances", "gpus", "providers"),
    [
        ("", 1, (), ()),
        ("{ count: 3 }", 3, (), ()),
        (
            "{ kind: KIND_GPU count: 2 gpus: [ 0, 1 ] }",
            4,
            (0, 1),
            ("CUDAExecutionProvider",),
        ),
        ("{ kind: KIND_CPU }, { kind: KIND_CPU count: 2 }", 3, (), ("CPUExecutionProvider",)),
    ],
)
def test_instance_groups(
    folder: Path, groups: str, instances: int, gpus: tuple[int, ...], providers: tuple[str, ...]
) -> None:
    settings = triton(folder, f"instance_group [ {groups} ]")
    assert (settings.instances, settings.gpus, settings.providers) == (instances, gpus, providers)


def test_accelerators_become_providers(folder: Path) -> None:
    settings = triton(
        folder,
        """
        optimization { execution_accelerators { gpu_execution_accelerator [ {
          name: "tensorrt"
          parameters { key: "precision_mode" value: "FP16" }
          parameters { key: "max_workspace_size_bytes" value: "1024" }
          parameters { key: "odd" value: "1" }
        }, { name: "warp" } ] } }
        instance_group [ { kind: KIND_GPU } ]
        """,
    )
    assert settings.providers == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert settings.provider_options == {
        "TensorrtExecutionProvider": {"trt_fp16_enable": "1", "trt_max_workspace_size": "1024"}
    }
    assert settings.ignored == (
        "optimization.execution_accelerators.tensorrt.odd",
        "optimization.execution_accelerators.warp",
    )


@pytest.mark.parametrize(
    ("text", "error", "complaint"),
    [
        ('platform: "tensorflow_savedmodel"', LoadError, "backend 'tensorflow_savedmodel'"),
        ('backend: "python"', LoadError, "backend 'python'"),
        ('platform: "ensemble"', LoadError, "backend 'ensemble'"),
        ('name: "other"', ConfigError, "name is 'other', but the model's directory is 'digits'"),
        ("max_batch_size: -1", ConfigError, "max_batch_size must be at least 0"),
        ("max_batch_size: x", ConfigError, "not a valid Triton model configuration: 1:17"),
        ("no_such_field: 1", ConfigError, 'no field named "no_such_field"'),
        ('output [ { name: "y" label_filename: "gone" } ]', ConfigError, "gone cannot be read"),
        (
            'parameters { key: "intra_op_thread_count" value { string_value: "x" } }',
            ConfigError,
            "parameters.intra_op_thread_count must be an integer, not 'x'",
        ),
    ],
)
def test_what_is_wrong_in_pbtxt_is_named(
    folder: Path, text: str, error: type[GatewayError], complaint: str
) -> None:
    with pytest.raises(error) as caught:
        triton(folder, text)
    assert complaint in str(caught.value)


def test_toml_goes_before_pbtxt(folder: Path) -> None:
    (folder / "config.pbtxt").write_text("max_batch_size: 4")
    assert toml(folder, "max_batch_size = 2").max_batch_size == 2
