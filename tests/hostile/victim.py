"""The gateway under attack, and the proof that it took no harm."""

from pathlib import Path

import numpy as np

from tests.fronts import GrpcUnary, HttpBinary, Request, Tensor, sample
from tests.repository import rows_of
from tests.server import GatewayProcess

X = sample("FP32", (2, 4))
RIGHT = Request("rows", (Tensor.of("x", X),))


class Victim:
    """The gateway under attack."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.gateway = gateway
        self._http = HttpBinary(gateway)
        self._grpc = GrpcUnary(gateway)

    def assert_well(self) -> None:
        """It runs, says that it is ready, and infers rightly over both protocols."""
        self.gateway.assert_running()
        assert self.gateway.get("/v2/health/ready")[0] == 200
        for front in (self._http, self._grpc):
            np.testing.assert_array_equal(front.infer(RIGHT)["y"], rows_of(X))

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.gateway.pid}/fd").iterdir()))

    def wait_for_descriptors(self, most: int) -> None:
        """Until no more than ``most`` are open: closed connections are let go of."""
        self.gateway.wait_until(lambda: self.descriptors() <= most, deadline_s=20)

    def close(self) -> None:
        self._http.close()
        self._grpc.close()
