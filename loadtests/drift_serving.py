"""A model behind a running gateway, its rows sent in order, and what its prediction stream says."""

import queue
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import numpy.typing as npt
import tritonclient.grpc.service_pb2 as pb

from gateway.protos import stream_message
from loadtests import targets
from loadtests.payloads import GRPC_PATH

SUBSCRIBE: Final = "/onnx_gateway.v1.PredictionStream/Subscribe"
ROWS_A_REQUEST: Final = 250
#: Rows that may be on their way through the gateway and its stream at once.
MOST_UNDER_WAY: Final = 10 * ROWS_A_REQUEST
TIMEOUT_S: Final = 60.0


Rows = npt.NDArray[np.float32] | npt.NDArray[np.float64]


class WrongAccount(Exception):
    """The stream does not bring what was sent."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """What the prediction stream brought, in the order of the rows.

    Attributes:
        x: the inputs.
        label, probabilities: what the model answered.
        batches: of the gateway.
    """

    x: Rows
    label: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    batches: int


def save(model: Any, features: tuple[str, ...], folder: Path, *, double: bool = False) -> None:
    """Write a scikit-learn classifier as version 1 of a model of a repository.

    Args:
        double: whether it is to reckon in 64 bits, not 32.
    """
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    shutil.rmtree(folder, ignore_errors=True)
    (folder / "1").mkdir(parents=True)
    made = to_onnx(
        model,
        initial_types=[
            ("x", (DoubleTensorType if double else FloatTensorType)([None, len(features)]))
        ],
        options={id(model): {"zipmap": False}},
    )
    (folder / "1" / "model.onnx").write_bytes(made.SerializeToString())
    named = ", ".join(f'"{feature}"' for feature in features)
    (folder / "model.toml").write_text(f"[inputs.x]\nfeatures = [{named}]\n")


def stream(repository: Path, name: str, x: Rows) -> Streamed:
    """Serve a model, send it the rows of ``x`` in order, and return what its stream brings.

    Raises:
        WrongAccount: it is not exactly the rows that were sent.
    """
    options = ["--grpc-prediction-stream"]
    with (
        targets.gateway(repository, name, options=options, core=None) as gateway,
        _channel(gateway) as channel,
    ):
        watch = _Watch(channel, name)
        infer = channel.unary_unary(GRPC_PATH)
        # The subscription begins when its first message comes: send one row until it does.
        watch.wait_until_there(lambda: infer(_request(name, x[:1], "first"), timeout=TIMEOUT_S))
        for start in range(0, len(x), ROWS_A_REQUEST):
            message = _request(name, x[start : start + ROWS_A_REQUEST], f"row-{start}")
            infer(message, timeout=TIMEOUT_S)
            watch.take(start + ROWS_A_REQUEST - MOST_UNDER_WAY)
        watch.take(len(x))
        watch.close()
    made = watch.streamed()
    if made.x.shape != x.shape or not np.array_equal(made.x, x):
        raise WrongAccount(f"{x.shape} rows were sent, {made.x.shape} came out of the stream")
    return made


@contextmanager
def _channel(gateway: targets.Gateway) -> Iterator[grpc.Channel]:
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{gateway.grpc_port}", options) as channel:
        yield channel


def _request(name: str, rows: Rows, id: str) -> bytes:
    message = pb.ModelInferRequest(model_name=name, id=id, raw_input_contents=[rows.tobytes()])
    datatype = "FP64" if rows.dtype == np.float64 else "FP32"
    message.inputs.add(name="x", datatype=datatype, shape=rows.shape)
    encoded: bytes = message.SerializeToString()
    return encoded


class _Watch:
    """A subscription, read on a thread of its own."""

    def __init__(self, channel: grpc.Channel, name: str) -> None:
        request = stream_message("SubscribeRequest")(models=[name])
        self._read = stream_message("SubscribeResponse").FromString
        self._call = channel.unary_stream(SUBSCRIBE)(request.SerializeToString())
        self._came: queue.Queue[Any] = queue.Queue()
        self._parts: list[dict[str, npt.NDArray[Any]]] = []
        self._rows = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            for data in self._call:
                self._came.put(self._read(data))
        except grpc.RpcError as error:
            self._came.put(error)

    def wait_until_there(self, send: Any) -> None:
        for _ in range(1000):
            send()
            try:
                self._next(0.1)
            except queue.Empty:
                continue
            break
        else:
            raise WrongAccount("the subscription brings nothing")
        while True:
            try:
                self._next(0.5)
            except queue.Empty:
                return

    def _next(self, timeout_s: float) -> Any:
        message = self._came.get(timeout=timeout_s)
        if isinstance(message, grpc.RpcError):
            raise WrongAccount(f"the subscription ended: {message}")
        return message

    def take(self, rows: int) -> None:
        """Take what has come, and wait until it is at least ``rows``."""
        while self._rows < rows:
            message = self._next(TIMEOUT_S)
            if message.dropped:
                raise WrongAccount(f"predictions were dropped: {list(message.dropped)}")
            part = message.predictions
            tensors = [*part.inputs, *part.outputs]
            self._parts.append(
                {
                    tensor.name: _array(tensor, raw)
                    for tensor, raw in zip(tensors, part.raw_contents, strict=True)
                }
            )
            self._rows += sum(request.rows for request in part.requests)

    def close(self) -> None:
        self._call.cancel()

    def streamed(self) -> Streamed:
        columns = {
            name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]
        }
        return Streamed(
            columns["x"],
            columns["label"].astype(np.int64).reshape(-1),
            columns["probabilities"].astype(np.float64),
            len(self._parts),
        )


def _array(tensor: Any, raw: bytes) -> npt.NDArray[Any]:
    dtype = {"FP32": np.float32, "INT64": np.int64, "FP64": np.float64}[tensor.datatype]
    return np.frombuffer(raw, dtype).reshape(tuple(tensor.shape))
