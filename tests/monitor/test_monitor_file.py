"""What ``monitor.toml`` may say, and what is told where it is wrong."""

import pytest

from gateway.errors import ConfigError
from gateway.monitor.measures import MEASURES, Limits
from gateway.monitor.monitor_file import MonitorSettings, read_monitor_file
from gateway.tables import table


@pytest.fixture
def read(tmp_path):
    def from_text(text, **kinds):
        file = tmp_path / "monitor.toml"
        file.write_text(text)
        return read_monitor_file(file, kinds)

    return from_text


def test_an_empty_file_watches_everything_by_default(read):
    assert read("") == MonitorSettings()


def test_everything_can_be_set(read, tmp_path):
    settings = read(
        """
        watch = ["age", "y*"]
        ignore = ["y_raw"]
        reference = { profile = "training.json" }
        window = { seconds = "1h", step = "15m", min_rows = 50, sample = 500 }
        tests = ["psi", "kolmogorov_smirnov"]
        correction = "benjamini_hochberg"
        significance = 0.001
        keep = 10
        [limits]
        psi = { warning = 0.05, drifted = 0.1 }
        [features."a*"]
        tests = ["jensen_shannon"]
        [features.age.limits]
        jensen_shannon = 0.2
        """
    )
    assert settings.reference.profile == tmp_path / "training.json"
    assert (settings.window.seconds, settings.window.parts) == (3600.0, 4)
    assert settings.watches("age")
    assert settings.watches("y")
    assert not settings.watches("y_raw")
    assert not settings.watches("height")
    assert settings.tests_of("age") == {"jensen_shannon": Limits(None, 0.2)}
    assert settings.tests_of("y") == {
        "psi": Limits(0.05, 0.1),
        "kolmogorov_smirnov": MEASURES["kolmogorov_smirnov"].limits,
    }


def test_tables_of_further_monitors_are_read_by_their_owners(read):
    assert read("[online]\nx = 1\n", online=table).monitors == {"online": {"x": 1}}
    with pytest.raises(ConfigError, match="unknown key 'online'"):
        read("[online]\nx = 1\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("windows = 3", "unknown key 'windows'; did you mean 'window'"),
        ("window = { rows = 10, seconds = 5 }", "either rows or seconds"),
        ("window = { rows = 10, step = 3 }", "window.step must be a part of 10"),
        ("window = { rows = 1000, step = 1 }", "100 steps make a window at most"),
        ('window = { seconds = "5 weeks" }', 'text such as "15m"'),
        ("reference = { live = 0 }", "an integer of at least 1"),
        ('reference = { live = 5, profile = "a" }', 'profile = "FILE"'),
        ('tests = ["ks"]', 'tests\\[0\\] must be "jensen_shannon"'),
        ("[limits]\npsi = -1", "limits.psi must be a finite number"),
        ("[limits]\npsi = {}", "warning = ..., drifted = ..."),
        ("significance = 2", "significance must be a number from 0 to 1"),
        ('correction = "sidak"', "correction must be"),
        ("a = [", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(read, text, told):
    with pytest.raises(ConfigError, match=told) as caught:
        read(text)
    assert "monitor.toml" in str(caught.value)
