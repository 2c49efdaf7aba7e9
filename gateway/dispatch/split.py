"""A part of a model's traffic for another version, chosen request by request."""

from collections.abc import Callable
from hashlib import blake2b
from random import random

from gateway.serving.lifecycle import State
from gateway.serving.registry import ModelVersion
from gateway.types import InferRequest


class Split:
    """Divides the requests that name no version between the stable version and a candidate.

    A request with a sticky key goes where the key's hash lies: at or above ``share`` to the stable
    version, below to the candidate. A larger share therefore keeps every key that the candidate
    has, and moves just the difference. A request without a key goes by chance.

    Args:
        model: the model's name; keys of different models are spread independently.
        share: of the requests for the candidate, 0 to 1.
        header: HTTP header or gRPC metadata key, lower case, that holds the key; ``""`` for none.
        parameter: a request parameter that does, where the header is not there.
        chance: a number from 0 to below 1 for a request without a key.
    """

    __slots__ = ("_chance", "_header", "_parameter", "_salt", "candidate", "share", "stable")

    def __init__(
        self,
        model: str,
        stable: ModelVersion,
        candidate: ModelVersion,
        share: float,
        *,
        header: str = "",
        parameter: str = "",
        chance: Callable[[], float] = random,
    ) -> None:
        self.stable = stable
        self.candidate = candidate
        self.share = share
        self._header = header.encode()
        self._parameter = parameter
        self._salt = blake2b(model.encode(), digest_size=16).digest()
        self._chance = chance

    def choose(self, request: InferRequest) -> ModelVersion:
        """Who answers ``request``; the stable version where the candidate does not serve."""
        key = self._key(request)
        place = self._chance() if key is None else key_place(self._salt, key)
        if place < self.share and self.candidate.state is State.READY:
            return self.candidate
        return self.stable

    def _key(self, request: InferRequest) -> bytes | None:
        if self._header and request.metadata is not None:
            value = request.metadata.get(self._header)
            if value:
                return value
        if self._parameter:
            given = request.parameters.get(self._parameter)
            if given is not None:
                return str(given).encode()
        return None


def key_place(salt: bytes, key: bytes) -> float:
    """Where ``key`` lies on the line from 0 to below 1: always there, for one salt."""
    digest = blake2b(key, digest_size=8, key=salt).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53
