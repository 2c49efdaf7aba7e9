import pytest

from tests.control.weighty import Transitions


@pytest.fixture
def transitions(monkeypatch: pytest.MonkeyPatch) -> Transitions:
    """What happens to versions during the test."""
    return Transitions(monkeypatch)
