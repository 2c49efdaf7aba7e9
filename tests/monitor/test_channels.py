"""Who is told what: channels over real receivers, and the courier that brings the messages."""

import asyncio
import logging
import threading
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.monitor.alert_settings import read_alerts
from gateway.monitor.channels import read_channel
from gateway.monitor.courier import ATTEMPTS, MAX_WAITING, Courier
from gateway.monitor.findings import Level
from gateway.monitor.http_post import Answer
from gateway.monitor.messages import Message, Topic
from gateway.monitoring_file import Part
from tests.monitor.alerted import AT_ONCE, on_alerted
from tests.monitor.receiver import Receiver

OK, WARNING, DRIFTED = Level.OK, Level.WARNING, Level.DRIFTED


def channel(name="ops", **table):
    return read_channel(Part(name, f"file: channels.{name}.", table, Path(".")))


def message(**values):
    given = {
        "topic": Topic.EPISODE_BEGAN,
        "model": "m",
        "version": "1",
        "at": 1_760_000_000.0,
        "level": DRIFTED,
        "title": "a <b> & c",
        **values,
    }
    return Message(**given)


def told(receiver, scenario, **table):
    """Run ``scenario`` with a webhook to ``receiver``, and wait until everything is told."""

    async def run(alerted):
        await scenario(alerted)
        await alerted.alerting.settled()

    on_alerted(run, channels=[channel(type="webhook", url=receiver.url, **table)])


async def drift_and_recovery(alerted):
    await alerted.window(OK)
    await alerted.window(DRIFTED)
    await alerted.window(OK)


def test_the_plain_form_has_all_of_the_evidence():
    with Receiver() as receiver:
        told(receiver, drift_and_recovery)
        alert, began, cleared, ended = (receiver.next().document for _ in range(4))
    assert [d["topic"] for d in (alert, began, cleared, ended)] == [
        "alert", "episode_began", "alert", "episode_ended",
    ]  # fmt: skip
    assert alert["evidence"]["changes"][0]["finding"]["value"] == 0.5
    assert began["title"] == "model 'm' version '1' has drifted"
    assert began["episode"] == ended["episode"] != ""
    assert began["evidence"]["findings"][0]["subject"] == "x"
    assert (cleared["level"], len(cleared["lines"])) == ("ok", 2)
    assert ended["title"].endswith("is over: the drift went away")


def test_slacks_form_is_text_with_an_attachment():
    with Receiver() as receiver:
        told(receiver, drift_and_recovery, form="slack")
        documents = [receiver.next().document for _ in range(4)]
    assert [set(each) for each in documents] == [{"text", "attachments"}] * 4
    began = documents[1]
    assert began["text"] == "model 'm' version '1' has drifted"
    assert began["attachments"][0]["color"] == "danger"
    assert {"title": "Version", "value": "1", "short": True} in began["attachments"][0]["fields"]
    assert documents[3]["attachments"][0]["color"] == "good"
    assert message().as_slack()["text"] == "a &lt;b&gt; &amp; c"
    many = message(lines=tuple(map(str, range(50)))).as_slack()["attachments"][0]["text"]
    assert many.splitlines()[-1] == "and 30 more"


def test_a_channel_takes_what_it_wants():
    with Receiver() as receiver:
        told(receiver, drift_and_recovery, topics=["episode_ended"])
        assert receiver.next().document["topic"] == "episode_ended"
        told(receiver, drift_and_recovery, models=["n*"])
        assert receiver.received.empty()


def test_the_least_level_counts_on_the_way_up_and_on_the_way_down():
    async def warned(alerted):
        await alerted.window(WARNING)
        await alerted.window(DRIFTED)
        await alerted.window(OK)

    with Receiver() as receiver:
        told(receiver, warned, least="drifted", topics=["alert"])
        levels = [receiver.next().document["level"] for _ in range(2)]
        assert receiver.received.empty()
    assert levels == ["drifted", "ok"]


@pytest.mark.parametrize("subjects", [True, False])
def test_a_single_feature_is_told_of_where_that_is_wanted(subjects):
    async def scenario(alerted):
        alerted.settings = read_alerts(
            "alerts", {**AT_ONCE, "rules": {"all": {"test": "psi", "subject": "y", "above": 1}}}
        )
        await alerted.window(DRIFTED)

    with Receiver() as receiver:
        told(receiver, scenario, subjects=subjects)
        assert receiver.received.empty() is not subjects


def test_nobody_is_told_of_what_is_acknowledged_or_silenced():
    async def scenario(alerted):
        await alerted.window(DRIFTED)
        await alerted.alerting.acknowledge("m", by="ada")
        await alerted.window(Level.WARNING)
        await alerted.alerting.silence("m", 60, by="ada")
        await alerted.window(DRIFTED)

    with Receiver() as receiver:
        told(receiver, scenario)
        topics = [receiver.next().document["topic"] for _ in range(3)]
        assert receiver.received.empty()
    assert topics == ["alert", "episode_began", "episode_ended"]


def test_without_channels_the_log_is_told(caplog):
    caplog.set_level(logging.INFO)
    on_alerted(drift_and_recovery)
    assert "model 'm' version '1' has drifted (alerts: x, drifted_share; actions: none)" in (
        caplog.text
    )


# The courier


class Stubborn:
    """A channel that answers as it is told to."""

    def __init__(self, name="stubborn", *answers):
        self.name = name
        self.wanted = channel(type="log").wanted
        self.answers = list(answers)
        self.sent = []
        self.began = asyncio.Event()
        self.held = asyncio.Event()
        self.held.set()

    async def send(self, message, id):
        self.sent.append((message.title, id))
        self.began.set()
        await self.held.wait()
        return self.answers.pop(0) if self.answers else Answer(status=200, text="")

    def close(self):
        pass


async def no_sleep(seconds):
    assert 0 < seconds <= 60


def on_courier(test, *channels):
    async def run():
        courier = Courier(channels, sleep=no_sleep)
        courier.start()
        try:
            await test(courier)
        finally:
            await courier.close()
        return courier

    return asyncio.run(run())


BUSY, GONE = Answer(status=503, text="", retry_after_s=500.0), Answer(status=410, text="")


def test_a_message_is_told_again_under_its_own_id():
    stubborn = Stubborn("s", BUSY, BUSY)

    async def scenario(courier):
        courier.tell(message())
        await courier.flushed()
        assert len(stubborn.sent) == 3
        assert len(set(stubborn.sent)) == 1

    courier = on_courier(scenario, stubborn)
    assert courier.counts == {("s", "sent"): 1, ("s", "failed"): 0, ("s", "dropped"): 0}


@pytest.mark.parametrize(("answers", "tries"), [([GONE], 1), ([BUSY] * 9, ATTEMPTS)])
def test_a_message_is_given_up_and_counted(answers, tries):
    stubborn = Stubborn("s", *answers)

    async def scenario(courier):
        courier.tell(message())
        await courier.flushed()

    assert on_courier(scenario, stubborn).counts["s", "failed"] == 1
    assert len(stubborn.sent) == tries


def test_a_channel_that_is_down_costs_its_own_messages_alone(monkeypatch):
    monkeypatch.setattr("gateway.monitor.courier.LAST_WORDS_S", 0.01)
    down, up = Stubborn("down"), Stubborn("up")

    async def scenario(courier):
        down.held.clear()
        courier.tell(message(title="first"))
        await down.began.wait()
        for number in range(MAX_WAITING + 5):
            courier.tell(message(title=str(number)))
            while len(up.sent) < number + 2:
                await asyncio.sleep(0)
        assert courier.counts["down", "dropped"] == 5

    courier = on_courier(scenario, down, up)
    assert courier.counts["up", "sent"] == MAX_WAITING + 6
    # What was not told when the server stopped, the one on its way included.
    assert courier.counts["down", "dropped"] == MAX_WAITING + 6
    assert courier.counts["down", "sent"] == 0


def test_a_model_chooses_its_channels():
    one, other = Stubborn("one"), Stubborn("other")

    async def scenario(courier):
        courier.tell(message(), ["other"])
        await courier.flushed()

    on_courier(scenario, one, other)
    assert (len(one.sent), len(other.sent)) == (0, 1)


def test_the_end_does_not_wait_for_who_does_not_answer(monkeypatch):
    monkeypatch.setattr("gateway.monitor.courier.LAST_WORDS_S", 0.01)

    async def scenario(alerted):
        await alerted.window(DRIFTED)
        await asyncio.to_thread(receiver.next)
        before.extend(each for each in threading.enumerate() if each.name.startswith("post-ops"))
        assert len(before) == 1

    before = []
    with Receiver() as receiver:
        receiver.held.clear()
        on_alerted(scenario, channels=[channel(type="webhook", url=receiver.url, timeout_s=60)])
        before[0].join(20)
        assert not before[0].is_alive()


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({}, "file: channels.ops.type is missing: expected one of log, webhook"),
        ({"type": "log", "url": "x"}, "channels.ops.unknown key 'url'"),
        ({"type": "webhook"}, "channels.ops.url is missing"),
        ({"type": "webhook", "url": "x"}, "channels.ops.url must be an http or https URL"),
        ({"type": "webhook", "url": "http://x", "form": "xml"}, 'must be "slack" or "json"'),
        ({"type": "log", "least": "ok"}, 'must be "warning" or "drifted"'),
        ({"type": "log", "topics": ["x"]}, 'topics[0] must be "alert" or'),
        ({"type": "log", "command": ["x"]}, "unknown key 'command'"),
    ],
)
def test_a_wrong_table_is_told(table, expected):
    with pytest.raises(ConfigError) as error:
        channel(**table)
    assert expected in str(error.value)
