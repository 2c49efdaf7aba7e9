"""The alerts over the admin port."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.errors import Conflict
from tests.front.fake_admin import ALERTS, FakeAdmin
from tests.front.running_admin import RunningAdmin

PATH = "/admin/models/digits/alerts"
WHO = {"by": "ada", "reason": "why"}


@pytest.fixture(scope="module")
def running() -> Iterator[RunningAdmin]:
    with RunningAdmin() as made:
        yield made


@pytest.fixture
def admin(running: RunningAdmin) -> FakeAdmin:
    running.admin.__init__()  # type: ignore[misc]
    return running.admin


@pytest.fixture
def client(running: RunningAdmin) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, headers={"X-Actor": "ada"}) as made:
        yield made


def test_how_they_stand(client: httpx.Client, admin: FakeAdmin) -> None:
    assert client.get(PATH).json() == ALERTS
    assert client.get("/admin/alerts").json() == [ALERTS]
    assert client.get("/admin/models/nobody/alerts").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "call"),
    [
        ("POST", f"{PATH}/acknowledge", {"reason": "why"}, ("acknowledge", ("digits",), WHO)),
        (
            "PUT",
            f"{PATH}/silence",
            {"for_s": 60, "reason": "why"},
            ("silence", ("digits", 60), WHO),
        ),
        ("DELETE", f"{PATH}/silence?reason=why", None, ("end_silence", ("digits",), WHO)),
    ],
)
def test_what_is_changed_is_changed_by_somebody_for_a_reason(
    client: httpx.Client,
    admin: FakeAdmin,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    call: tuple[Any, ...],
) -> None:
    answer = client.request(method, path, json=body)
    assert (answer.status_code, answer.json()) == (200, ALERTS)
    assert admin.calls.pop() == call
    admin.refusal = Conflict("there is no open episode")
    answer = client.request(method, path, json=body)
    assert (answer.status_code, answer.json()) == (409, {"error": "there is no open episode"})


@pytest.mark.parametrize("seconds", [0, -1, 31 * 86_400, "60", None])
def test_a_silence_lasts_some_time_and_not_for_ever(
    client: httpx.Client, admin: FakeAdmin, seconds: Any
) -> None:
    answer = client.put(f"{PATH}/silence", json={"for_s": seconds})
    assert answer.status_code == 400
    assert "for_s must be" in answer.json()["error"]
    assert "for_s is missing" in client.put(f"{PATH}/silence", json={}).json()["error"]
