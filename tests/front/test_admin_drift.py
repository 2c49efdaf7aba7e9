"""What the monitors have found, as the admin port gives it."""

import httpx
import pytest

from tests.front.fake_admin import DRIFT
from tests.front.running_admin import RunningAdmin


def test_the_reports_are_given_as_they_are() -> None:
    with RunningAdmin() as running:
        answer = httpx.get(f"{running.url}/admin/models/digits/drift")
        assert answer.json() == DRIFT
        assert running.admin.asked_windows == 1
        httpx.get(f"{running.url}/admin/models/digits/drift?windows=25")
        assert running.admin.asked_windows == 25


@pytest.mark.parametrize("given", ["-1", "1001", "x", "1.5"])
def test_a_number_of_windows_that_is_none_is_refused(given: str) -> None:
    with RunningAdmin() as running:
        answer = httpx.get(f"{running.url}/admin/models/digits/drift?windows={given}")
        assert answer.status_code == 400
        assert "a whole number from 0 to 1000" in answer.json()["error"]
