"""The demo: starts the gateway on real models, sends it real inputs, and shows what it did.

``python -m examples.demo`` needs the repository of ``python -m examples.build_models``. Every
answer is compared with ONNX Runtime in this process; the exit code is 1 if one differs, or if the
gateway does not end cleanly.
"""

import argparse
import asyncio
import sys
import sysconfig
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import sklearn

from examples.build_models import DEFAULT_DIRECTORY, DEMO_MODELS
from examples.gateway import Gateway, GatewayError, running
from examples.models import digits, file_type, silero_vad
from examples.models.packages import CACHE
from examples.telling import say, title
from examples.traffic import Array, Caller, callers, spread

IN_FLIGHT = 64
SPEAKERS = 32
SHOWN_FILES = 20
#: Largest difference to ONNX Runtime in process that still counts as the same answer.
TOLERANCE = 1e-4
#: magika's own: rows that run together are rounded unlike rows that run alone, and on a file that
#: is none of its types the model magnifies that.
FILE_TOLERANCE = 1e-2


class Reference:
    """A model of the repository in this process, without the gateway."""

    def __init__(self, models: Path, name: str) -> None:
        onnxruntime.set_default_logger_severity(3)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = models / name / "1" / "model.onnx"
        self._session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])

    def run(self, **arrays: Array) -> dict[str, Any]:
        """The outputs by name, as ONNX Runtime gives them."""
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, arrays), strict=True))


class Agreement:
    """The largest difference between the gateway's numbers and ONNX Runtime's own."""

    def __init__(self, tolerance: float = TOLERANCE) -> None:
        self.answers = 0
        self.largest = 0.0
        self._tolerance = tolerance

    def add(self, given: Array, expected: Array) -> None:
        if given.shape != expected.shape:
            raise SystemExit(f"the gateway answered shape {given.shape}, not {expected.shape}")
        self.answers += 1
        self.largest = max(self.largest, float(np.abs(given - expected).max(initial=0)))

    @property
    def holds(self) -> bool:
        return self.largest <= self._tolerance

    def __str__(self) -> str:
        verdict = "agree" if self.holds else "DO NOT agree"
        return (
            f"{self.answers} answers {verdict} with ONNX Runtime in process "
            f"(largest difference {self.largest:.1e})"
        )


async def show_digits(clients: tuple[Caller, Caller], models: Path) -> Agreement:
    """Classify every held-out scan, one to a request."""
    title("digits: handwritten digits (scikit-learn, skl2onnx, with ZipMap)")
    _, scans, _, labels = digits.split()

    async def classify(client: Caller, scan: npt.NDArray[np.float32]) -> dict[str, Array]:
        return await client.infer(digits.NAME, pixels=scan[None])

    answers = await spread(clients, list(scans), classify, IN_FLIGHT)
    found = np.array([answer["output_label"][0] for answer in answers])
    probabilities = np.stack([answer["output_probability"][0] for answer in answers])
    drawing = digits.draw(scans[0])
    text = [
        "", f"the gateway says {found[0]}", f"the label says   {labels[0]}", "",
        "probabilities:",
        " ".join(f"{digit}:{value:.2f}" for digit, value in enumerate(probabilities[0])),
    ]  # fmt: skip
    text += [""] * (len(drawing) - len(text))
    say(*(f"|{row}|   {line}".rstrip() for row, line in zip(drawing, text, strict=True)))

    agreement = Agreement()
    reference = Reference(models, digits.NAME)
    for scan, probability in zip(scans, probabilities, strict=True):
        maps = reference.run(pixels=scan[None])["output_probability"]
        agreement.add(probability, np.array([maps[0][digit] for digit in range(10)], np.float32))
    right = int((found == labels).sum())
    say(
        "",
        f"{len(scans)} held-out scans, {IN_FLIGHT} in flight: "
        f"{right} right ({right / len(scans):.1%})",
        str(agreement),
    )
    return agreement


def files() -> list[Path]:
    """Real files: of this repository, of Python's library, one of each suffix of its packages."""
    library = Path(sysconfig.get_paths()["stdlib"])
    by_suffix: dict[str, Path] = {}
    for path in sorted(Path(sklearn.__file__).parents[1].rglob("*.*")):
        if path.is_file() and 1_000 < path.stat().st_size < 10_000_000:
            by_suffix.setdefault(path.suffix, path)
    return [
        Path(sys.executable).resolve(),
        *sorted(CACHE.glob("silero*")),
        *(Path(name) for name in ("README.md", "Makefile", "pyproject.toml", "setup.py")),
        *by_suffix.values(),
        *sorted(Path("gateway").rglob("*.py")),
        *sorted(library.glob("*.py"))[:100],
    ]


async def show_files(clients: tuple[Caller, Caller], models: Path) -> Agreement:
    """Name the type of real files."""
    title(f"magika: file types (Google's model, {len(file_type.labels())} types)")
    contents = {}
    for path in files():
        content = path.read_bytes() if path.is_file() else b""
        if len(content.strip()) >= 64:
            contents[path] = content

    async def identify(client: Caller, content: bytes) -> Array:
        answer = await client.infer(file_type.NAME, bytes=file_type.features(content)[None])
        return answer["target_label"].reshape(-1)

    scores = await spread(clients, list(contents.values()), identify, IN_FLIGHT)
    names = file_type.labels()
    agreement = Agreement(FILE_TOLERANCE)
    reference = Reference(models, file_type.NAME)
    same = 0
    shown: set[str] = set()
    for (path, content), score in zip(contents.items(), scores, strict=True):
        found = names[int(score.argmax())]
        label, own_score = file_type.expected(content)
        same += found == label and abs(own_score - float(score.max())) <= FILE_TOLERANCE
        features = file_type.features(content)[None]
        agreement.add(score, reference.run(bytes=features)["target_label"][0])
        if found not in shown and len(shown) < SHOWN_FILES:
            shown.add(found)
            say(f"{path.name:<42.42} {found:<16} {float(score.max()):.3f}")
    say(
        "",
        f"{len(contents)} files, {IN_FLIGHT} in flight: {same} of {len(contents)} are what the "
        "magika package itself says",
        str(agreement),
    )
    return agreement


async def follow(client: Caller, chunks: Array) -> Array:
    """Send one speaker's chunks one after the other, the state carried along; ``float32 [n]``."""
    state = np.zeros((2, 1, 128), np.float32)
    rate = np.array(silero_vad.SAMPLE_RATE, np.int64)
    speech = np.empty(len(chunks), np.float32)
    for index, chunk in enumerate(chunks):
        answer = await client.infer(silero_vad.NAME, input=chunk[None], state=state, sr=rate)
        speech[index], state = answer["output"][0, 0], answer["stateN"]
    return speech


def follow_in_process(reference: Reference, chunks: Array) -> Array:
    """The same without the gateway."""
    state = np.zeros((2, 1, 128), np.float32)
    rate = np.array(silero_vad.SAMPLE_RATE, np.int64)
    speech = np.empty(len(chunks), np.float32)
    for index, chunk in enumerate(chunks):
        answer = reference.run(input=chunk[None], state=state, sr=rate)
        speech[index], state = answer["output"][0, 0], answer["stateN"]
    return speech


async def show_speech(clients: tuple[Caller, Caller], models: Path) -> Agreement:
    """Find the speech in a recording, cut up among concurrent speakers."""
    title("silero_vad: voice activity, stateful (the state is batched on axis 1)")
    samples, source = silero_vad.recording()
    parts = np.array_split(silero_vad.chunks(samples), SPEAKERS)
    speech = await spread(clients, parts, follow, SPEAKERS)

    reference = Reference(models, silero_vad.NAME)
    agreement = Agreement()
    for given, part in zip(speech, parts, strict=True):
        for value, expected in zip(given, follow_in_process(reference, part), strict=True):
            agreement.add(np.asarray(value), np.asarray(expected))
    whole = np.concatenate(speech)
    seconds = len(samples) / silero_vad.SAMPLE_RATE
    line = "".join(
        "#" if window.mean() > 0.5 else "." for window in np.array_split(whole, int(seconds))
    )
    say(
        f"{seconds:.0f} s of {source},",
        f"in {len(whole)} chunks of 32 ms: {SPEAKERS} speakers at once, each carrying its state",
        "",
        f"|{line}|  one mark a second, # is speech",
        "",
        f"speech in {(whole > 0.5).mean():.0%} of the chunks",
        str(agreement),
    )
    return agreement


async def show_batcher(http: Caller, names: Iterable[str]) -> None:
    """What the statistics endpoint says about the requests above."""
    title("what the batcher did (from /v2/models/<name>/stats; times are means)")
    say(f"{'model':<12}{'requests':>9}{'runs':>7}{'rows a run':>12}{'queued':>11}{'computed':>11}")
    sizes = []
    for name in names:
        statistics = await http.statistics(name)
        stages = statistics["inference_stats"]
        requests = int(stages["success"]["count"])
        runs = int(statistics["execution_count"])
        rows = int(statistics["inference_count"])
        queue, compute = (
            int(stages[stage]["ns"]) / max(int(stages[stage]["count"]), 1) / 1e3
            for stage in ("queue", "compute_infer")
        )
        say(
            f"{name:<12}{requests:>9}{runs:>7}{rows / max(runs, 1):>12.1f}"
            f"{queue:>8.0f} us{compute:>8.0f} us"
        )
        counts = {
            int(entry["batch_size"]): int(entry["compute_infer"]["count"])
            for entry in statistics["batch_stats"]
        }
        sizes.append(
            f"{name:<12}" + "  ".join(f"{size}x{count}" for size, count in sorted(counts.items()))
        )
    say("", "batch size x runs:", *sizes)


async def show_everything(gateway: Gateway, models: Path) -> bool:
    """Send all traffic; whether every answer agreed."""
    async with callers(gateway.http_port, gateway.grpc_port) as clients:
        agreements = [
            await show_digits(clients, models),
            await show_files(clients, models),
            await show_speech(clients, models),
        ]
        await show_batcher(clients[0], DEMO_MODELS)
    return all(agreement.holds for agreement in agreements)


def main() -> int:
    parser = argparse.ArgumentParser(description="Serve real models and send them real inputs.")
    parser.add_argument("--models", type=Path, default=DEFAULT_DIRECTORY, metavar="DIRECTORY")
    models = parser.parse_args().models
    if not all((models / name).is_dir() for name in DEMO_MODELS):
        raise SystemExit(f"{models} lacks demo models: run python -m examples.build_models")
    log = models.parent / "gateway.log"
    started = time.monotonic()
    title("onnx-gateway")
    with running(models, log) as gateway:
        say(f"$ onnx-gateway {' '.join(gateway.command[3:])}")
        try:
            say(f"ready after {gateway.wait_until_ready():.1f} s; its log is {log}")
        except GatewayError as error:
            raise SystemExit(str(error)) from None
        agreed = asyncio.run(show_everything(gateway, models))
        title("the end")
        code, seconds = gateway.stop()
    say(
        f"SIGTERM: the gateway ended with exit code {code} after {seconds:.1f} s",
        f"the demo took {time.monotonic() - started:.0f} s",
    )
    return 0 if agreed and code == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
