"""From windows to journal, messages and actions: over a real store, with windows made by hand."""

import asyncio
import shutil
from pathlib import Path

import pytest

from gateway.control.monitor_record import MonitorRecord
from gateway.errors import ConfigError, Conflict, ModelNotFound, StateUnavailable
from gateway.monitor.actions import Action
from gateway.monitor.alert_settings import read_alerts
from gateway.monitor.findings import Level
from gateway.monitor.outcome import Outcome
from tests.monitor.alerted import on_alerted

OK, WARNING, DRIFTED, NO_DATA = Level.OK, Level.WARNING, Level.DRIFTED, Level.NO_DATA


class Scripted:
    """An action that comes to ``outcomes`` one after the other, then to success."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.attempts = []
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def attempt(self, episode, attempt):
        self.attempts.append((episode.id, attempt))
        self.began.set()
        await self.may_end.wait()
        outcome = self.outcomes.pop(0) if self.outcomes else Outcome(ok=True, text="done")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def close(self):
        pass


def retrain(run, **options):
    return Action(name="retrain", run=run, **{"backoff_s": 0.001, **options})


LATER, NEVER = Outcome(ok=False, text="busy"), Outcome(ok=False, again=False, text="refused")


def test_a_drift_is_journaled_and_acted_on_once():
    run = Scripted()

    async def scenario(alerted):
        await alerted.window(OK)
        assert await alerted.verbs() == []
        for _ in range(3):
            await alerted.window(DRIFTED)
        await alerted.alerting.settled()
        assert len(run.attempts) == 1
        alert, begin, action = await alerted.history()
        assert (alert.verb, alert.by, alert.model, alert.version) == ("alert", "gateway", "m", "1")
        assert alert.reason == (
            "x ok -> drifted (psi 0.5, limit 0.2); "
            "drifted_share ok -> drifted (drifted_share 1, limit 0.5; 1 of 1 drifted: x)"
        )
        assert [c["alert"] for c in alert.evidence["changes"]] == [
            "subject:x",
            "rule:drifted_share",
        ]
        assert begin.verb == "episode_begin"
        assert begin.reason == "version '1' has drifted: x, drifted_share"
        assert begin.evidence["findings"][0]["value"] == 0.5
        assert begin.evidence["actions"] == ["retrain"]
        assert (action.verb, action.outcome) == ("action", "ok")
        assert action.evidence["episode"] == begin.evidence["episode"] == run.attempts[0][0]
        assert action.evidence["because"]["drifted"][0]["subject"] == "x"

    on_alerted(scenario, actions=[retrain(run)])


def test_an_action_is_tried_again_and_each_attempt_is_journaled():
    run = Scripted(LATER, RuntimeError("a bug"), Outcome(ok=False, text="asked", wait_s=0.002))

    async def scenario(alerted):
        await alerted.window(DRIFTED)
        await asyncio.wait_for(alerted.alerting.settled(), 20)
        assert [attempt for _, attempt in run.attempts] == [1, 2, 3, 4]
        assert len({id for id, _ in run.attempts}) == 1
        actions = [event for event in await alerted.history() if event.verb == "action"]
        assert [event.outcome for event in actions] == ["failed", "failed", "failed", "ok"]
        assert [event.evidence["phase"] for event in actions] == [*["pending"] * 3, "succeeded"]
        assert actions[0].reason.startswith("action 'retrain': busy; again in ")
        assert "RuntimeError: a bug" in actions[1].reason
        counts = alerted.alerting.sample().attempts
        assert counts == {("retrain", "m", "failed"): 3, ("retrain", "m", "succeeded"): 1}

    # The clock of the test stands still, so that no wait is over before it is slept through.
    on_alerted(scenario, actions=[retrain(run, backoff_s=0.0, max_backoff_s=0.0)])


@pytest.mark.parametrize(("outcomes", "tries"), [([NEVER], 1), ([LATER] * 9, 3)])
def test_an_action_is_given_up_when_refused_or_after_its_attempts(outcomes, tries):
    run = Scripted(*outcomes)

    async def scenario(alerted):
        await alerted.window(DRIFTED)
        await asyncio.wait_for(alerted.alerting.settled(), 20)
        assert len(run.attempts) == tries
        assert alerted.alerting.alerts("m")["episode"]["firings"][0]["phase"] == "failed"
        assert (await alerted.history())[-1].evidence["phase"] == "failed"

    on_alerted(scenario, actions=[retrain(run, attempts=3, backoff_s=0.0)])


def test_waits_double_up_to_a_limit_and_follow_what_is_asked():
    action = retrain(Scripted(), backoff_s=10.0, max_backoff_s=60.0)
    assert [action.delay_s(n) for n in (1, 2, 3, 4, 400)] == [10, 20, 40, 60, 60]
    assert action.delay_s(1, 45.0) == 45
    assert action.delay_s(1, 4500.0) == 60


def test_an_episode_ends_when_another_version_serves():
    run = Scripted()

    async def scenario(alerted):
        await alerted.window(DRIFTED)
        await alerted.alerting.settled()
        alerted.now += 30
        alerted.alerting.routed()
        await alerted.judged()
        assert alerted.alerting.alerts("m")["episode"] is not None
        alerted.serving = "2"
        alerted.alerting.routed()
        await alerted.judged()
        end = (await alerted.history())[-1]
        assert (end.verb, end.version) == ("episode_end", "1")
        assert end.reason == "version '2' serves in its place"
        assert end.evidence["ended_by"] == "2"
        assert end.evidence["lasted_s"] == 30
        assert end.evidence["actions"] == {"retrain": "succeeded"}
        assert await alerted.record.kept("episode") == {}
        after = alerted.alerting.alerts("m")
        assert (after["episode"], after["versions"]) == (None, [])
        assert after["recent"][0]["ended_by"] == "2"
        # The next version has episodes of its own.
        await alerted.window(DRIFTED, version="2")
        assert alerted.alerting.alerts("m")["episode"]["version"] == "2"

    on_alerted(scenario, actions=[retrain(run)])


def test_an_episode_ends_when_the_drift_goes_away_and_not_when_there_is_no_data():
    async def scenario(alerted):
        await alerted.window(DRIFTED)
        for _ in range(5):
            await alerted.window(NO_DATA)
        assert alerted.alerting.alerts("m")["versions"][0]["state"] == "no data"
        assert alerted.alerting.alerts("m")["episode"] is not None
        await alerted.window(WARNING)
        assert (await alerted.history())[-1].reason == "the drift went away"
        assert alerted.alerting.alerts("m")["episode"] is None

    on_alerted(scenario, table={"silent_after": 2})


def test_what_is_pending_when_an_episode_ends_is_not_tried_again():
    run = Scripted(LATER)

    async def scenario(alerted):
        await alerted.window(DRIFTED)
        await run.began.wait()
        await alerted.window(OK)
        await asyncio.wait_for(alerted.alerting.settled(), 20)
        assert len(run.attempts) == 1
        ended = alerted.alerting.alerts("m")["recent"][0]
        assert ended["firings"][0]["phase"] == "cancelled"
        assert await alerted.record.kept("episode") == {}

    on_alerted(scenario, actions=[retrain(run, backoff_s=3600.0, max_backoff_s=3600.0)])


def test_a_version_that_does_not_serve_has_alerts_and_no_episode():
    async def scenario(alerted):
        await alerted.window(DRIFTED, version="7")
        assert await alerted.verbs() == ["alert"]
        alerted.serving = "7"
        await alerted.window(DRIFTED, version="7")
        assert (await alerted.verbs())[-1] == "episode_begin"

    on_alerted(scenario)


# Restarts


def test_an_action_survives_the_death_of_the_process(tmp_path):
    """The directory as a process leaves it that dies while the action runs."""
    run, died, after = Scripted(), tmp_path / "died", Scripted()

    async def dying(alerted):
        run.may_end.clear()
        await alerted.window(DRIFTED)
        await run.began.wait()
        shutil.copytree(tmp_path / "state", died)
        run.may_end.set()

    async def restarted(alerted):
        await asyncio.wait_for(alerted.alerting.settled(), 20)
        assert after.attempts == [(run.attempts[0][0], 2)]
        actions = [event for event in await alerted.history() if event.verb == "action"]
        assert [event.outcome for event in actions] == ["failed", "ok"]
        assert "the server ended while it ran" in actions[0].reason
        # Nor does the drift, which is still there, begin another episode.
        await alerted.window(DRIFTED)
        assert (await alerted.verbs()).count("episode_begin") == 1
        # It is over after windows without drift, as it would have been without the restart.
        await alerted.window(OK)
        assert (await alerted.history())[-1].verb == "episode_end"
        assert (await alerted.store.verify()).intact

    on_alerted(dying, tmp_path / "state", actions=[retrain(run)])
    on_alerted(restarted, died, actions=[retrain(after, backoff_s=0.0)])


def test_what_runs_when_the_server_stops_runs_again_when_it_is_back(tmp_path):
    run, after = Scripted(), Scripted()

    async def stopping(alerted):
        run.may_end.clear()
        await alerted.window(DRIFTED)
        await run.began.wait()

    async def restarted(alerted):
        await asyncio.wait_for(alerted.alerting.settled(), 20)
        assert after.attempts == [(run.attempts[0][0], 2)]
        assert "the server was stopped while it ran" in (await alerted.history())[-2].reason

    on_alerted(stopping, tmp_path, actions=[retrain(run)])
    on_alerted(restarted, tmp_path, actions=[retrain(after)])


def test_a_change_of_the_settings_holds_for_the_next_window_and_clears_nothing():
    async def scenario(alerted):
        await alerted.window(DRIFTED)
        alerted.settings = read_alerts(
            "alerts", {"clear_after": 2, "rules": {"one": {"drifted_share": 1.0}}}
        )
        await alerted.window(OK)
        states = {
            a["alert"]: a["state"] for a in alerted.alerting.alerts("m")["versions"][0]["alerts"]
        }
        assert states == {"x": "drifted", "one": "ok"}

    on_alerted(scenario)


def test_an_action_that_the_operator_has_removed_is_given_up(tmp_path):
    run = Scripted()

    async def stopping(alerted):
        run.may_end.clear()
        await alerted.window(DRIFTED)
        await run.began.wait()

    async def restarted(alerted):
        await asyncio.wait_for(alerted.alerting.settled(), 20)
        assert "there is no action 'retrain' any more" in (await alerted.history())[-1].reason

    on_alerted(stopping, tmp_path, actions=[retrain(run)])
    on_alerted(restarted, tmp_path)


class FullDisk(MonitorRecord):
    """Cannot write the verbs in ``refused``."""

    refused: frozenset[str] = frozenset()

    def _event(self, verb, *arguments):
        if verb in self.refused:
            raise StateUnavailable("the disk is full")
        return super()._event(verb, *arguments)


def test_what_cannot_be_written_is_not_done_and_is_done_once_it_can_be():
    run = Scripted()

    async def scenario(alerted):
        alerted.record.refused = frozenset({"alert", "episode_begin"})
        await alerted.window(DRIFTED)
        assert (run.attempts, await alerted.verbs()) == ([], [])
        assert alerted.alerting.sample().reports["failed"] == 1
        alerted.record.refused = frozenset()
        await alerted.window(DRIFTED)
        await alerted.alerting.settled()
        assert len(run.attempts) == 1
        assert await alerted.verbs() == ["episode_begin", "action"]

    on_alerted(scenario, record=FullDisk, actions=[retrain(run)])


def test_an_end_that_cannot_be_written_is_written_with_the_next_window():
    async def scenario(alerted):
        await alerted.window(DRIFTED)
        alerted.serving = "2"
        alerted.record.refused = frozenset({"episode_end"})
        alerted.alerting.routed()
        await alerted.judged()
        assert alerted.alerting.alerts("m")["episode"] is not None
        alerted.record.refused = frozenset()
        await alerted.window(OK, version="2")
        assert (await alerted.history())[-1].evidence["ended_by"] == "2"

    on_alerted(scenario, record=FullDisk)


def test_a_damaged_episode_is_told_at_the_start(tmp_path):
    async def damage(alerted):
        await alerted.store.keep("episode", {"e": {"id": "e"}}, None)

    async def never(alerted):
        raise AssertionError

    on_alerted(damage, tmp_path)
    with pytest.raises(ConfigError, match="the state directory's episode 'e': this is no episode"):
        on_alerted(never, tmp_path)


# People


def test_a_silence_lets_nothing_begin_until_it_ends():
    run = Scripted()

    async def scenario(alerted):
        standing = await alerted.alerting.silence("m", 60, by="ada", reason="migration")
        assert standing["silence"]["by"] == "ada"
        await alerted.window(DRIFTED)
        assert await alerted.verbs() == ["silence", "alert"]
        assert alerted.alerting.sample().silenced == ["m"]
        alerted.now += 61
        assert alerted.alerting.alerts("m")["silence"] is None
        await alerted.window(DRIFTED)
        assert (await alerted.verbs())[2] == "episode_begin"

    on_alerted(scenario, actions=[retrain(run)])


def test_a_silence_survives_a_restart_and_is_ended_by_somebody(tmp_path):
    async def begin(alerted):
        await alerted.alerting.silence("m", 60, by="ada")

    async def end(alerted):
        assert alerted.alerting.alerts("m")["silence"]["by"] == "ada"
        assert (await alerted.alerting.end_silence("m", by="bob", reason="done"))["silence"] is None
        with pytest.raises(Conflict, match="model 'm' is not silenced"):
            await alerted.alerting.end_silence("m", by="bob")
        last = (await alerted.history())[-1]
        assert (last.verb, last.by, last.reason) == ("end_silence", "bob", "done")

    on_alerted(begin, tmp_path)
    on_alerted(end, tmp_path)


def test_an_episode_is_acknowledged_by_somebody():
    async def scenario(alerted):
        with pytest.raises(Conflict, match="no open episode"):
            await alerted.alerting.acknowledge("m", by="ada")
        await alerted.window(DRIFTED)
        standing = await alerted.alerting.acknowledge("m", by="ada", reason="on it")
        assert standing["episode"]["acknowledged"] == "ada"
        assert alerted.alerting.sample().episodes[0].acknowledged
        last = (await alerted.history())[-1]
        assert (last.verb, last.by, last.reason) == ("acknowledge", "ada", "on it")
        for call in (alerted.alerting.acknowledge, alerted.alerting.end_silence):
            with pytest.raises(ModelNotFound, match="unknown model 'n'; known are m"):
                await call("n", by="ada")

    on_alerted(scenario)


def test_a_models_own_file_chooses_among_the_operators_actions(caplog):
    run = Scripted()

    async def scenario(alerted):
        await alerted.window(DRIFTED)
        assert alerted.alerting.alerts("m")["episode"]["firings"] == []
        assert (
            "name the action 'other', which the file of --monitoring does not have" in caplog.text
        )

    on_alerted(scenario, table={"actions": ["other"]}, actions=[retrain(run)])
    on_alerted(scenario, table={"actions": ["other"]}, actions=[retrain(run, models=("n",))])


def test_windows_that_come_too_fast_are_dropped_and_counted(monkeypatch):
    monkeypatch.setattr("gateway.monitor.alerting.MAX_REPORTS", 3)

    async def scenario(alerted):
        await asyncio.gather(*(alerted.window(OK) for _ in range(5)))
        counts = alerted.alerting.sample().reports
        assert (counts["judged"], counts["dropped"]) == (3, 2)

    on_alerted(scenario)


def test_figures_that_json_lacks_are_written_as_text(tmp_path: Path):
    async def scenario(alerted):
        await alerted.window(DRIFTED, value=float("inf"))
        begin = (await alerted.history())[1]
        assert begin.evidence["findings"][0]["value"] == "inf"
        assert (await alerted.store.verify()).intact

    on_alerted(scenario, tmp_path)
