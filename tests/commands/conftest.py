"""What the tests of the commands share."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.cli import main
from tests.front.fake_admin import FakeAdmin
from tests.front.running_admin import RunningAdmin


@pytest.fixture(scope="session")
def shared_admin() -> Iterator[RunningAdmin]:
    with RunningAdmin() as running:
        yield running


@pytest.fixture
def running(shared_admin: RunningAdmin) -> RunningAdmin:
    shared_admin.admin.__init__()  # type: ignore[misc]
    return shared_admin


@pytest.fixture
def admin(running: RunningAdmin) -> FakeAdmin:
    return running.admin


class Command:
    """Runs the command against the running admin port."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._url = url
        self._capsys = capsys
        self.stderr = ""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What it prints. The exit code must be ``code``."""
        try:
            found = main([*arguments, "--admin", self._url])
        except SystemExit as end:
            found = int(end.code or 0)
        output = self._capsys.readouterr()
        self.stderr = output.err
        assert found == code, output.err
        return output.out

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The JSON that it prints."""
        return json.loads(self(*arguments, "--json", code=code))


@pytest.fixture
def command(running: RunningAdmin, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(running.url, capsys)
