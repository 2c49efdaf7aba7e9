import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from gateway.errors import InvalidRequest, Unsupported
from gateway.logs import Logging

log = logging.getLogger("gateway.test")


@pytest.fixture(autouse=True)
def _keep_root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def test_a_json_line_holds_the_record_and_its_extras(stream: io.StringIO) -> None:
    Logging("info", "json", stream)
    log.info("model %s loaded", "mlp", extra={"model": "mlp", "seconds": 0.5})
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "gateway.test",
        "message": "model mlp loaded",
        "model": "mlp",
        "seconds": 0.5,
    }


def test_a_json_record_stays_one_line_with_its_traceback(stream: io.StringIO) -> None:
    Logging("info", "json", stream)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: two\nlines" in json.loads(line)["traceback"]


def test_a_human_line_is_time_level_message_and_extras(stream: io.StringIO) -> None:
    Logging("info", "human", stream)
    log.warning("slow", extra={"model": "mlp"})
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING slow model=mlp\n", stream.getvalue()
    )


def test_auto_is_json_where_there_is_no_terminal(stream: io.StringIO) -> None:
    assert Logging("info", "auto", stream).settings()["log_format"] == "json"


def test_records_below_the_level_are_dropped(stream: io.StringIO) -> None:
    Logging("warning", "human", stream)
    log.info("unheard")
    log.error("heard")
    assert "unheard" not in stream.getvalue()
    assert "heard" in stream.getvalue()


def test_switches_work_at_run_time(stream: io.StringIO) -> None:
    control = Logging("info", "human", stream)
    log.debug("one")
    control.update({"log_verbose_level": 1, "log_info": False})
    log.debug("two")
    log.info("three")
    assert control.update({"log_format": "json", "log_info": True})["log_format"] == "json"
    log.info("four")
    first, second = stream.getvalue().splitlines()
    assert first.endswith("two")
    assert json.loads(second)["message"] == "four"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"log_colour": True}, InvalidRequest, 'no log setting "log_colour"; known are log_file'),
        ({"log_info": "yes"}, InvalidRequest, "log_info must be true or false; got 'yes'"),
        ({"log_verbose_level": -1}, InvalidRequest, "log_verbose_level must be 0 or more"),
        ({"log_format": "xml"}, InvalidRequest, 'log_format must be "human" or "json"'),
        ({"log_file": "x.log"}, Unsupported, "logs to stderr only"),
    ],
)
def test_a_wrong_switch_is_refused_and_nothing_changes(
    stream: io.StringIO, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    control = Logging("info", "human", stream)
    before = control.settings()
    with pytest.raises(error, match=message):
        control.update({"log_warning": False, **changes})
    assert control.settings() == before
