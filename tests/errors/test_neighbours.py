"""A bad request fails alone, whoever it shares a batch with."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.fronts import FRONTS, Front, RefusedError, Request, Tensor, sample
from tests.repository import rows_of
from tests.server import GatewayProcess

THREADS = 8
REQUESTS = 40


def every_front_at_once(gateway: GatewayProcess, ask: object) -> None:
    """Call ``ask(front, seed)`` many times on connections of every front at once."""

    def work(thread: int) -> None:
        front = FRONTS[thread % len(FRONTS)](gateway)
        try:
            for i in range(REQUESTS):
                ask(front, thread * REQUESTS + i)
        finally:
            front.close()

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(work, thread) for thread in range(THREADS)]:
            done.result()


def test_failure_in_the_model_fails_no_neighbour(grpc_gateway: GatewayProcess) -> None:
    def ask(front: Front, seed: int) -> None:
        rng = np.random.default_rng(seed)
        index = rng.integers(0, 10, (int(rng.integers(1, 5)), 1))
        if seed % 3 == 0:
            index[-1] = 10 + seed
        request = Request("lookup", (Tensor.of("index", index),))
        if seed % 3 == 0:
            with pytest.raises(RefusedError) as caught:
                front.infer(request)
            assert caught.value.code in ("INTERNAL", None)
            assert str(10 + seed) in caught.value.message, "the failure is its own"
        else:
            np.testing.assert_array_equal(front.infer(request)["y"], index * np.float32(1.5))

    every_front_at_once(grpc_gateway, ask)


def test_refusal_fails_no_neighbour(grpc_gateway: GatewayProcess) -> None:
    def ask(front: Front, seed: int) -> None:
        x = sample("FP32", (1 + seed % 4, 4), seed)
        wrong = [
            Tensor.of("x", x, shape=(1 + seed % 4, 5)),
            Tensor.of("x", x.astype(np.float64)),
            Tensor.of("z", x),
            Tensor.of("x", x, raw=x.tobytes()[:-1], elements=[1.0]),
        ][seed // 2 % 4]
        if seed % 2:
            with pytest.raises(RefusedError) as caught:
                front.infer(Request("rows", (wrong,)))
            assert caught.value.code in ("INVALID_ARGUMENT", None)
        else:
            answer = front.infer(Request("rows", (Tensor.of("x", x),)))
            np.testing.assert_array_equal(answer["y"], rows_of(x))

    every_front_at_once(grpc_gateway, ask)
