"""What may be set for one model, under Triton's names where Triton has the setting.

Read from ``model.toml`` or ``config.pbtxt`` by ``serving/model_config.py``; everything has a
default, so a model needs neither file.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

#: Values of ``ModelSettings.swap_policy``.
AVAILABILITY: Final = "availability"
IN_PLACE: Final = "in_place"


@dataclass(frozen=True, slots=True)
class TensorSettings:
    """Corrections to one tensor's description.

    Attributes:
        batch_axis: the axis that holds the batch; ``-1`` says that an input is shared by the whole
            batch; ``None`` leaves it to the graph. Of outputs, only ``probe = false`` needs it.
        labels: a class label for each index of the last axis, for the classification extension.
        features: a name for each index of the last axis, for the prediction stream and the
            monitors.
        shape: the full shape of an input for which the graph has not even a rank, ``-1`` for any
            size; from a ``config.pbtxt``, the shape that the graph's must agree with.
        datatype: the protocol's type name that the graph's must agree with; ``""`` for any.
    """

    batch_axis: int | None = None
    labels: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    shape: tuple[int, ...] | None = None
    datatype: str = ""


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Which versions of a model are loaded: the ``latest`` n, ``specific`` ones, or ``all``."""

    latest: int | None = 1
    specific: tuple[str, ...] = ()

    @property
    def all(self) -> bool:
        """Whether every version found is loaded."""
        return self.latest is None and not self.specific


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What of a model's predictions is published. Names are of tensors, of features, or ``x[3]``.

    Attributes:
        sample: the share of the requests, 0 to 1.
        keep: what is published, ``()`` for everything.
        drop: what of that is not.
        redact: what is published blank: text as ``"[redacted]"``, floats as NaN, else 0.
    """

    sample: float = 1.0
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    redact: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """How the predictions of a model are kept for labels, the truth that comes later.

    Attributes:
        hold_rows: most predictions (rows) that are kept, the newest.
        hold_hours: how long one is kept.
        wait_hours: how long a label waits for a prediction that is not there yet.
        outputs: the outputs that are kept, ``()`` for all that are published.
    """

    hold_rows: int = 200_000
    hold_hours: float = 168.0
    wait_hours: float = 1.0
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ValidationSettings:
    """What a new version must pass before it serves.

    Attributes:
        golden: whether the golden requests are replayed.
        require_golden: whether a version without golden requests is refused.
        max_latency_ratio: most that a run may take, as a multiple of what the serving version
            takes (geometric means over the batch sizes measured for both); 0 for no limit.
        max_memory_bytes: most resident memory that opening its sessions may take; 0 for no limit.
        require_same_signature: whether its inputs and outputs must be those of the serving
            version.
    """

    golden: bool = True
    require_golden: bool = False
    max_latency_ratio: float = 0.0
    max_memory_bytes: int = 0
    require_same_signature: bool = False


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """The settings of one model. Times are in the unit that the name ends with.

    Attributes:
        max_batch_size: most rows that run together; ``None`` chooses by measurement, 0 turns
            batching off.
        latency_objective_ms: the one knob of the batcher: how long a request may take inside the
            gateway, queue and compute together; 0 for no objective.
        max_queue_delay_us: how long a request may wait for company although a runner is free.
        preferred_batch_size: row counts at which a delayed batch leaves at once.
        max_queue_size: requests that may wait; more are refused.
        default_timeout_us: deadline of a request that brings none; 0 for none.
        priority_levels: number of priorities, 1 the most urgent; 0 for none (one level).
        default_priority_level: the level of a request that names none; 0 for the middle one.
        allow_slicing: whether a request with more rows than ``max_batch_size`` is run in slices
            instead of refused.
        instances: runners, each with a session of its own.
        gpus: CUDA device indices that the instances go round; empty for device 0.
        providers: ONNX Runtime execution providers in order; empty chooses by what is there.
        provider_options: options by provider name.
        intra_op_threads: threads inside one operator; 0 chooses by model size.
        inline: run on the event loop (``True``), on runner threads (``False``), or by measured
            latency (``None``).
        probe: whether the batch probe runs at load; without it a declared batch axis is believed.
        warmup: a ``.npz`` whose arrays (by input name) are the sample rows of the probe and the
            warm-up; a file of the same name beside a version's model goes before it. ``None``
            makes samples up.
        golden: the directory of the golden requests for all versions; one of the same name beside
            a version's model goes before it, file by file. ``None`` for a model without a
            directory.
        validation: what a new version must pass.
        stream: what of its predictions is published.
        labels: how its predictions are kept for labels; ``None`` keeps none.
        swap_policy: whether a version is loaded beside the one that it replaces
            (``AVAILABILITY``), or after that one is unloaded (``IN_PLACE``).
        model_filename: the model file's name inside a version's directory.
        inputs, outputs: corrections by tensor name.
        source: the file that the settings came from, ``None`` for the defaults.
        ignored: fields of that file that are not honoured, as ``section.name``.
    """

    max_batch_size: int | None = None
    latency_objective_ms: float = 0.0
    max_queue_delay_us: int = 0
    preferred_batch_size: tuple[int, ...] = ()
    max_queue_size: int = 4096
    default_timeout_us: int = 0
    priority_levels: int = 0
    default_priority_level: int = 0
    allow_slicing: bool = True
    instances: int = 1
    gpus: tuple[int, ...] = ()
    providers: tuple[str, ...] = ()
    provider_options: dict[str, dict[str, str]] = field(default_factory=dict)
    intra_op_threads: int = 0
    inline: bool | None = None
    probe: bool = True
    warmup: Path | None = None
    golden: Path | None = None
    validation: ValidationSettings = ValidationSettings()
    stream: StreamSettings = StreamSettings()
    labels: LabelSettings | None = None
    version_policy: VersionPolicy = VersionPolicy()
    swap_policy: str = AVAILABILITY
    model_filename: str = "model.onnx"
    inputs: dict[str, TensorSettings] = field(default_factory=dict)
    outputs: dict[str, TensorSettings] = field(default_factory=dict)
    source: Path | None = None
    ignored: tuple[str, ...] = ()
