"""``silero_vad``: Silero's voice activity model, out of its wheel (which asks for torch).

It is stateful: an answer carries ``stateN``, which goes into the next request as ``state``. That
state is ``[2, N, 128]``, batched on its second axis, beside ``input`` ``[N, 576]``, batched on its
first, and the scalar ``sr``, shared by everyone in a batch.
"""

import io
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from examples.models.packages import FetchError, Package

NAME = "silero_vad"
SAMPLE_RATE = 16_000
CHUNK = 512
#: Samples of the previous chunk that go in front of each chunk.
CONTEXT = 64

_WHEEL = Package("silero-vad", "6.2.3")
_SOURCES = Package("silero-vad", "6.2.3", source=True)

Samples = npt.NDArray[np.float32]


def build(directory: Path) -> str:
    """Unpack the export without control flow: its graph declares every shape, state included."""
    version = directory / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(_WHEEL.read("/data/silero_vad_op18_ifless.onnx"))
    rng = np.random.default_rng(0)
    rows = 8
    np.savez(
        directory / "warmup.npz",
        input=rng.normal(0, 0.1, (rows, CONTEXT + CHUNK)).astype(np.float32),
        state=rng.normal(0, 0.3, (2, rows, 128)).astype(np.float32),
        sr=np.array(SAMPLE_RATE, np.int64),
    )
    (directory / "model.toml").write_text(
        "# 576 samples are one chunk at 16 kHz: made-up sizes and rates would not run.\n"
        'warmup = "warmup.npz"\n\n'
        "[inputs.sr]\n"
        "batch_axis = -1\n\n"
        "[inputs.state]\n"
        "batch_axis = 1\n\n"
        "[outputs.stateN]\n"
        "batch_axis = 1\n"
    )
    # The demo's signal is fetched now, with everything else.
    recording()
    return f"silero-vad {_WHEEL.version}; state batched on axis 1, sample rate shared"


def recording() -> tuple[Samples, str]:
    """A minute of sound (``float32 [n]``, 16 kHz), and what it is: real speech if it can be had."""
    try:
        content = _SOURCES.read("/tests/data/test.wav")
    except FetchError as error:
        print(f"  no recorded speech: {error}", flush=True)
        return _hum(), "synthesised hum and silence in turns (no speech)"
    with wave.open(io.BytesIO(content)) as audio:
        if (audio.getnchannels(), audio.getsampwidth(), audio.getframerate()) != (1, 2, 16_000):
            raise SystemExit("the recording is not 16-bit mono at 16 kHz")
        pcm = np.frombuffer(audio.readframes(audio.getnframes()), "<i2")
    where = f"the speech recording in the sources of silero-vad {_SOURCES.version}"
    return (pcm / 32768).astype(np.float32), where


def _hum() -> Samples:
    """Harmonics of 120 Hz for two seconds, silence for two seconds, and so on for a minute."""
    time = np.arange(60 * SAMPLE_RATE) / SAMPLE_RATE
    tone = sum(np.sin(2 * np.pi * 120 * harmonic * time) / harmonic for harmonic in range(1, 9))
    return (0.2 * tone * (time % 4 < 2)).astype(np.float32)


def chunks(samples: Samples) -> Samples:
    """Consecutive chunks, each behind the end of the one before: ``float32 [n, 576]``."""
    count = len(samples) // CHUNK
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), samples[: count * CHUNK]])
    windows = np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + CHUNK)
    return np.ascontiguousarray(windows[::CHUNK])
