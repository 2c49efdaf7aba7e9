"""The operator's file: its tables, its secrets, and what is said of what is wrong in it."""

from pathlib import Path
from random import Random

import pytest

from gateway.errors import ConfigError
from gateway.monitoring_file import MonitoringFile, Part, Secret, read_monitoring_file
from gateway.retry import Retry, retry_check
from gateway.tables import integer, table_of, text


@pytest.fixture
def read(tmp_path):
    """Reads a file of the given text."""

    def run(content: str) -> MonitoringFile:
        path = tmp_path / "monitoring.toml"
        path.write_text(content)
        return read_monitoring_file(str(path))

    return run


def part_of(read, content: str) -> Part:
    (part,) = read("[sinks.one]\n" + content).sinks
    return part


def test_without_a_file_there_is_nothing() -> None:
    assert read_monitoring_file("") == MonitoringFile("", (), (), ())


def test_the_tables_are_taken_apart_by_their_kinds(read) -> None:
    found = read('[sinks.a]\nn = 1\n[sinks.b]\n[channels.c]\n[actions.d]\ntype = "command"\n')
    assert [part.name for part in found.sinks] == ["a", "b"]
    assert [part.name for part in found.channels] == ["c"]
    assert found.actions[0].type(["webhook", "command"]) == "command"
    assert found.sinks[0].read({"n": integer(1)}) == {"n": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[sinks", "is not TOML"),
        ("[sink.a]", "unknown key 'sink'; did you mean 'sinks'?"),
        ("sinks = 1", "sinks must be a table, not 1"),
        ("[sinks]\na = 1", "sinks.a must be a table, not 1"),
        ('[sinks."a b"]', "the name after sinks. must be 1 to 64 letters"),
    ],
)
def test_what_is_wrong_is_told_with_the_file(read, tmp_path: Path, content, message) -> None:
    with pytest.raises(ConfigError) as error:
        read(content)
    assert message in str(error.value)
    assert str(tmp_path / "monitoring.toml") in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"cannot read the monitoring file .*/none\.toml: No such"
    ):
        read_monitoring_file(str(tmp_path / "none.toml"))


def test_a_key_is_named_with_its_table(read) -> None:
    with pytest.raises(ConfigError, match=r"monitoring\.toml: sinks\.one\.unknown key 'urll'"):
        part_of(read, "urll = 1").read({"url": text})
    with pytest.raises(ConfigError, match=r"sinks\.one\.url must be text, not 3"):
        part_of(read, "url = 3").read({"url": text})
    with pytest.raises(ConfigError, match=r"sinks\.one\.url is missing"):
        part_of(read, "").read({"url": text}, required=["url"])
    with pytest.raises(ConfigError, match=r"sinks\.one\.type is missing: expected one of a, b"):
        part_of(read, "").type(["b", "a"])
    with pytest.raises(ConfigError, match=r'sinks\.one\.type must be "a" or "b", not \'c\''):
        part_of(read, 'type = "c"').type(["a", "b"])


def test_a_path_begins_at_the_files_directory(read, tmp_path: Path) -> None:
    part = part_of(read, 'here = "data/x"\nthere = "/data"\n')
    found = part.read({"here": part.path, "there": part.path})
    assert found == {"here": tmp_path / "data/x", "there": Path("/data")}


def test_a_secret_comes_from_the_text_the_environment_or_a_file(read, tmp_path, monkeypatch):
    monkeypatch.setenv("SINK_TOKEN", "from env")
    (tmp_path / "token").write_text("from file\n")
    part = part_of(
        read, 'a = "as it is"\nb = { env = "SINK_TOKEN" }\nheaders.x = { file = "token" }\n'
    )
    found = part.read({"a": part.secret, "b": part.secret, "headers": table_of(part.secret)})
    secrets = [found["a"], found["b"], found["headers"]["x"]]
    assert [each.reveal() for each in secrets] == ["as it is", "from env", "from file"]
    assert f"{found} {secrets[0]!s}".count("***") == 4
    assert (
        part.scrub("could not log in as from env at from file") == "could not log in as *** at ***"
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('{ env = "SINK_NONE" }', "the environment variable SINK_NONE is not set"),
        ('{ file = "none" }', r"cannot read .*/none: No such file"),
        ('{ file = "empty" }', r"/empty is empty"),
        ('{ file = "a", env = "B" }', "with one of the two keys"),
        ('{ path = "a" }', "unknown key 'path'"),
        ("17", r'must be text, \{ env = "NAME" \} or \{ file = "path" \}, not int'),
        ('""', "must be text"),
    ],
)
def test_a_secret_that_cannot_be_had_is_an_error(read, tmp_path, value, message) -> None:
    (tmp_path / "empty").write_text("\n")
    part = part_of(read, f"token = {value}\n")
    with pytest.raises(ConfigError, match=r"monitoring\.toml: sinks\.one\.token.*" + message):
        part.read({"token": part.secret})


def test_a_secret_shows_nothing_of_itself() -> None:
    assert "hunter2" not in f"{Secret('hunter2')!r}{Secret('hunter2')}"


def test_waits_double_up_to_the_most_and_differ_by_chance() -> None:
    retry, chance = Retry(1.0, 10.0), Random(1)
    for failures, bound in enumerate([1, 2, 4, 8, 10, 10], 1):
        delays = [retry.delay_s(failures, chance) for _ in range(200)]
        assert bound / 2 <= min(delays) < 0.6 * bound
        assert 0.9 * bound < max(delays) <= bound
    assert retry.delay_s(10**6, chance) <= 10


def test_attempts_end_it_or_never() -> None:
    assert [Retry(1, 1, 3).is_over(n) for n in (1, 2, 3)] == [False, False, True]
    assert not Retry().is_over(10**9)


def test_a_retry_is_read_over_its_default() -> None:
    check = retry_check(Retry(1.0, 20.0, 5))
    assert check("retry", {}) == Retry(1.0, 20.0, 5)
    assert check("retry", {"attempts": "forever", "most_s": 2}) == Retry(1.0, 2.0, None)
    for given, message in (
        ({"attempts": 0}, 'retry.attempts must be an integer of at least 1, or "forever", not 0'),
        ({"first_s": 30}, "retry must be waits with 0 < first_s <= most_s"),
        ({"first": 1}, "retry.unknown key 'first'; did you mean 'first_s'?"),
        (3, "retry must be a table, not 3"),
    ):
        with pytest.raises(ConfigError) as error:
            check("retry", given)
        assert message in str(error.value)
