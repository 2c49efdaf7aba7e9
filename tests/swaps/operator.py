"""Swaps a model's versions by every means that there is."""

from collections.abc import Callable
from typing import Any

from loadtests.swap_log import SwapLog
from tests.server import GatewayProcess
from tests.swaps.versions import Versions


class Operator:
    """Whoever changes one model; blocks at each change until it is made.

    Attributes:
        log: which version served when.
    """

    def __init__(
        self, gateway: GatewayProcess, versions: Versions, until_answered_by: Callable[..., None]
    ) -> None:
        """Change the model of ``versions``, of which the first serves.

        Args:
            until_answered_by: blocks until some client of a model has an answer of a version. Each
                swap waits for that, so that no version serves in vain.
        """
        self.versions = versions
        self.model = versions.name
        self.log = SwapLog(["1"])
        self._gateway = gateway
        self._until_answered_by = until_answered_by

    def load(self) -> None:
        """A new version appears, and the repository API is told to look."""

        def change() -> None:
            self.versions.add()
            status, body = self._load()
            assert status == 200, body

        self._swap(self.versions.next, change)

    def poll(self) -> None:
        """A new version appears, and is found."""
        version = self.versions.next

        def change() -> None:
            self.versions.add()
            self._gateway.wait_until(lambda: self._status()["serving"] == version)

        self._swap(version, change)

    def promote(self, version: str) -> None:
        self._swap(version, lambda: self._verb("promote", version=version))

    def roll_back(self) -> None:
        previous = self._status()["traffic"]["previous"][0]
        self._swap(previous, lambda: self._verb("rollback"))

    def follow_latest(self) -> None:
        latest = self._status()["labels"]["latest"]
        self._swap(latest, lambda: self._verb("follow-latest"))

    def load_bad(self, kind: str) -> None:
        """The repository API refuses a bad version, and says why."""
        version = self.versions.add_bad(kind)
        status, body = self._load()
        assert status == 400, body
        assert self.versions.bad[version] in body["error"]
        self._check_serving()

    def promote_bad(self, kind: str) -> None:
        """So does the admin API."""
        version = self.versions.add_bad(kind)
        status, body = self._administer("promote", version=version)
        assert status == 400, body
        assert self.versions.bad[version] in body["error"]
        self._check_serving()

    def poll_bad(self, kind: str) -> None:
        """Where nobody asked, the repository index says why."""
        version = self.versions.add_bad(kind)
        none = ("", "")
        self._gateway.wait_until(lambda: index_of(self._gateway, self.model).get(version, none)[1])
        self._check_serving()

    def _swap(self, version: str, change: Callable[[], None]) -> None:
        with self.log.swap(version):
            change()
        self._check_serving()
        self._until_answered_by(self.model, version)

    def _check_serving(self) -> None:
        assert self._status()["serving"] == self.log.versions[-1]

    def _status(self) -> Any:
        status, body = self._gateway.administer("GET", f"/admin/models/{self.model}")
        assert status == 200, body
        return body

    def _verb(self, verb: str, **fields: str) -> None:
        status, body = self._administer(verb, **fields)
        assert status == 200, body

    def _administer(self, verb: str, **fields: str) -> tuple[int, Any]:
        return self._gateway.administer("POST", f"/admin/models/{self.model}/{verb}", fields)

    def _load(self) -> tuple[int, Any]:
        return self._gateway.post(f"/v2/repository/models/{self.model}/load", {})


def index_of(gateway: GatewayProcess, model: str) -> dict[str, tuple[str, str]]:
    """State and reason of each version of ``model``, as the repository index has them."""
    status, entries = gateway.post("/v2/repository/index", {})
    assert status == 200, entries
    return {
        entry["version"]: (entry["state"], entry.get("reason", ""))
        for entry in entries
        if entry["name"] == model
    }
