"""ONNX Runtime in process: the least that an item can cost, by batch size.

``python -m loadtests.runtime MODEL.onnx`` prints one JSON object, batch size to CPU microseconds
per item. The benchmark runs it as a child, so that it is pinned and measured like the servers.
"""

import argparse
import json
import time

import numpy as np
import onnxruntime

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


def session(path: str) -> onnxruntime.InferenceSession:
    """One thread, no spinning."""
    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])


def cost_us(model: onnxruntime.InferenceSession, batch: int, seconds: float) -> float:
    """CPU microseconds per item of bound runs over at least ``seconds`` of CPU time."""
    binding = model.io_binding()
    given, made = model.get_inputs()[0], model.get_outputs()[0]
    rows = np.random.default_rng(0).normal(0, 1, (batch, *given.shape[1:])).astype(np.float32)
    binding.bind_ortvalue_input(given.name, onnxruntime.OrtValue.ortvalue_from_numpy(rows))
    result = np.empty((batch, *made.shape[1:]), np.float32)
    binding.bind_ortvalue_output(made.name, onnxruntime.OrtValue.ortvalue_from_numpy(result))
    for _ in range(3):
        model.run_with_iobinding(binding)
    runs, started = 0, time.process_time()
    while True:
        for _ in range(8):
            model.run_with_iobinding(binding)
        runs += 8
        spent = time.process_time() - started
        if spent >= seconds:
            return spent * 1e6 / (runs * batch)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure ONNX Runtime in process.")
    parser.add_argument("model")
    parser.add_argument("--seconds", type=float, default=0.5, help="CPU time for each batch size")
    arguments = parser.parse_args()
    model = session(arguments.model)
    print(json.dumps({size: cost_us(model, size, arguments.seconds) for size in BATCH_SIZES}))


if __name__ == "__main__":
    main()
