"""Labels meet predictions, over real models behind a real control plane."""

import asyncio
import json
import sqlite3

import numpy as np
import pytest

from gateway.errors import ConfigError, Conflict, InvalidRequest, QueueFull, StateUnavailable
from gateway.monitor import ground_truth
from gateway.monitor.ground_truth import GroundTruth
from gateway.monitor.label_store import FILE_NAME
from gateway.monitor.labels import Outcome
from gateway.stream.stream import PredictionStream
from gateway.types import DATATYPES, InferInput, InferRequest
from tests.control.plane import on_plane
from tests.repository import ModelDirectory, echo, rows, rows_of

HOUR = 3600.0


class Clock:
    """Unix seconds, moved by hand."""

    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        return self.now


class Listener:
    """Keeps what it gets, a row each."""

    name = "test"

    def __init__(self, too_late=0, error=None):
        self.batches = []
        self.too_late = too_late
        self.error = error

    def joined(self, batch):
        if self.error is not None:
            raise self.error
        self.batches.append(batch)
        return self.too_late

    def truths(self, output="y"):
        """Output and truth of every row, in the order of the outputs."""
        found = [
            (array.tolist(), truth)
            for batch in self.batches
            for array, truth in zip(batch.outputs[output], batch.truth.tolist(), strict=True)
        ]
        return sorted(found)


class Scene:
    """A plane with ground truth, and what a test does with it."""

    def __init__(self, plane, truth, stream, listener, clock):
        self.plane = plane
        self.truth = truth
        self.stream = stream
        self.listener = listener
        self.clock = clock

    async def infer(self, id, array, model="rows"):
        by_dtype = {d.numpy: d for d in DATATYPES.values() if d.name != "BF16"}
        data = array if array.dtype == object else array.tobytes()
        given = InferInput("x", by_dtype[array.dtype], array.shape, data)
        answer = await self.plane.dispatcher.infer(
            InferRequest(model, "", id, [given], None, {}, 0, 1, None)
        )
        self.stream.flush()
        return answer

    async def label(self, *labels, model="rows"):
        body = json.dumps({"labels": labels}).encode()
        return counted(await self.truth.submit(model, "application/json", body))

    def report(self, model="rows"):
        return self.truth.report(model)

    async def settle(self):
        """Until the thread has done what it was given."""
        await self.truth._run(self.truth._look_after)


def counted(table):
    """What is not 0 of what became of labels; they add up."""
    assert table["received"] == table["waiting"] + sum(table[str(o)] for o in Outcome)
    known = ("received", "waiting", *map(str, Outcome))
    return {name: table[name] for name in known if table[name]}


@pytest.fixture
def play(tmp_path):
    """``play(scenario, settings)`` runs it; each time on the same state directory."""
    clock = Clock()

    def run(scenario, settings="[labels]\n", *, listener=None, build=rows, state=True):
        models = tmp_path / "models"
        if not models.exists():
            ModelDirectory(models).add("rows", build, settings)
        stream = PredictionStream()
        listener = listener or Listener()

        async def scene(plane):
            truth = GroundTruth(
                tmp_path if state else None,
                settings=stream.label_settings,
                flush=stream.flush,
                wall_clock=clock,
            )
            await truth.open()
            truth.listen(listener)
            stream.subscribe(truth.subscription)
            assert await plane.manager.start() == []
            try:
                await scenario(Scene(plane, truth, stream, listener, clock))
            finally:
                await truth.close()

        on_plane(scene, models, taps=stream)
        return listener

    return run


def some(n, count=1):
    return np.full((count, 4), n, np.float32) + np.arange(count, dtype=np.float32)[:, None]


def y(n):
    return rows_of(some(n))[0].tolist()


def test_a_label_meets_its_prediction_by_the_id(play):
    async def scenario(scene):
        for n in range(5):
            await scene.infer(f"r{n}", some(n))
        assert await scene.label(
            {"id": "r3", "value": 1}, {"id": "r1", "value": True, "time": 12.5}
        ) == {"received": 2, "joined": 2}
        assert scene.listener.truths() == [(y(1), 1.0), (y(3), 1.0)]
        (batch,) = scene.listener.batches
        assert (batch.model, batch.version, batch.earlier) == ("rows", "1", None)
        assert sorted(batch.labelled_at.tolist()) == [12.5, scene.clock.now]
        assert scene.report()["held"] == 5

    play(scenario)


def test_a_label_may_come_before_its_prediction(play):
    async def scenario(scene):
        assert await scene.label({"id": "early", "value": 7}) == {"received": 1, "waiting": 1}
        await scene.infer("early", some(2))
        await scene.settle()
        assert scene.listener.truths() == [(y(2), 7.0)]
        assert counted(scene.report()) == {"received": 1, "joined": 1}

    play(scenario)


def test_a_label_that_nothing_comes_for_is_counted_once_it_has_waited_long_enough(play):
    async def scenario(scene):
        await scene.label({"id": "nobody", "value": 7})
        scene.clock.now += 2 * HOUR - 1
        await scene.settle()
        assert counted(scene.report()) == {"received": 1, "waiting": 1}
        scene.clock.now += 2
        await scene.settle()
        assert counted(scene.report()) == {"received": 1, "unmatched": 1}
        await scene.infer("nobody", some(2))
        await scene.settle()
        assert scene.listener.batches == []

    play(scenario, "[labels]\nwait_hours = 2\n")


def test_of_labels_that_wait_there_is_a_limit(play, monkeypatch):
    monkeypatch.setattr(ground_truth, "MOST_WAITING", 2)

    async def scenario(scene):
        given = [{"id": f"w{n}", "value": n} for n in range(3)]
        assert await scene.label(*given) == {"received": 3, "waiting": 2, "unmatched": 1}

    play(scenario)


def test_the_same_label_again_is_ignored_and_another_one_holds(play):
    async def scenario(scene):
        await scene.infer("a", some(1))
        await scene.label({"id": "a", "value": 3})
        assert await scene.label({"id": "a", "value": 3.0}) == {"received": 1, "duplicate": 1}
        assert await scene.label({"id": "a", "value": 4}) == {"received": 1, "corrected": 1}
        assert await scene.label({"id": "a", "value": 4}) == {"received": 1, "duplicate": 1}
        assert await scene.label({"id": "a", "value": "four"}) == {"received": 1, "corrected": 1}
        first, second, third = scene.listener.batches
        assert (first.truth.tolist(), first.earlier) == ([3.0], None)
        assert (second.truth.tolist(), second.earlier.tolist()) == ([4.0], [3.0])
        assert (third.truth.tolist(), third.earlier.tolist()) == (["four"], [4.0])

    play(scenario)


def test_in_one_request_the_last_label_of_an_id_holds(play):
    async def scenario(scene):
        await scene.infer("a", some(1))
        again = [{"id": "a", "value": value} for value in (1, 2, 2)]
        expected = {"received": 3, "joined": 1, "corrected": 1, "duplicate": 1}
        assert await scene.label(*again) == expected
        waiting = [{"id": "w", "value": value} for value in (1, 1, 2)]
        expected = {"received": 3, "waiting": 1, "corrected": 1, "duplicate": 1}
        assert await scene.label(*waiting) == expected
        await scene.infer("w", some(5))
        await scene.settle()
        assert (y(5), 2.0) in scene.listener.truths()

    play(scenario)


def test_of_a_request_with_several_rows_each_has_its_label(play):
    async def scenario(scene):
        await scene.infer("many", some(10, 3))
        assert await scene.label({"id": "many", "value": 0}) == {"received": 1, "row_missing": 1}
        assert await scene.label(
            {"id": "many", "row": 2, "value": 2}, {"id": "many", "row": 0, "value": 0}
        ) == {"received": 2, "joined": 2}
        assert scene.listener.truths() == [(y(10), 0.0), (y(12), 2.0)]
        assert await scene.label({"id": "many", "row": 3, "value": 1}) == {
            "received": 1,
            "waiting": 1,
        }

    play(scenario)


def test_a_request_that_ran_in_slices_is_one_request(play):
    async def scenario(scene):
        await scene.infer("long", some(0, 7))
        given = [{"id": "long", "row": row, "value": row} for row in range(7)]
        assert await scene.label(*given) == {"received": 7, "joined": 7}
        assert scene.listener.truths() == sorted((y(n), float(n)) for n in range(7))

    play(scenario, "max_batch_size = 2\n[labels]\n")


def test_predictions_beyond_the_limit_are_let_go_of_and_their_labels_are_late(play):
    async def scenario(scene):
        for n in range(60):
            await scene.infer(f"r{n}", some(n))
        assert await scene.label({"id": "r59", "value": 1}, {"id": "r0", "value": 1}) == {
            "received": 2,
            "joined": 1,
            "late": 1,
        }
        assert 0 < scene.report()["held"] <= 16

    play(scenario, "[labels]\nhold_rows = 16\n")


def test_predictions_are_let_go_of_after_their_time(play):
    async def scenario(scene):
        await scene.infer("a", some(1))
        await scene.label({"id": "a", "value": 1})
        await scene.settle()
        assert scene.report()["held"] == 1
        # The predictions bear the time of the machine, which is after that of the clock.
        scene.clock.now = 2e9 + 3 * HOUR
        await scene.settle()
        assert scene.report()["held"] == 0
        assert await scene.label({"id": "a", "value": 1}) == {"received": 1, "late": 1}

    play(scenario, "[labels]\nhold_hours = 2\n")


def test_thousands_of_labels_in_any_order_find_their_predictions(play):
    async def scenario(scene):
        for first in range(0, 6000, 500):
            await asyncio.gather(
                *(scene.infer(f"r{n}", some(n)) for n in range(first, first + 500))
            )
        order = np.random.default_rng(1).permutation(6000).tolist()
        given = [{"id": f"r{n}", "value": n} for n in order]
        assert await scene.label(*given) == {"received": 6000, "joined": 6000}
        assert scene.listener.truths() == sorted((y(n), float(n)) for n in range(6000))
        assert len(scene.listener.batches) < 10

    play(scenario)


def test_a_restart_loses_neither_predictions_nor_labels_nor_counts(play):
    async def before(scene):
        await scene.infer("a", some(1))
        await scene.infer("b", some(2))
        await scene.label({"id": "a", "value": 1}, {"id": "later", "value": 9})

    async def after(scene):
        assert counted(scene.report()) == {"received": 2, "joined": 1, "waiting": 1}
        assert scene.report()["held"] == 2
        await scene.infer("later", some(3))
        assert await scene.label({"id": "a", "value": 1}, {"id": "b", "value": 2}) == {
            "received": 2,
            "duplicate": 1,
            "joined": 1,
        }
        assert scene.listener.truths() == [(y(2), 2.0), (y(3), 9.0)]

    play(before)
    play(after)


def test_without_a_state_directory_it_works_and_is_gone_with_the_process(play, tmp_path):
    async def before(scene):
        await scene.infer("a", some(1))
        assert await scene.label({"id": "a", "value": 1}) == {"received": 1, "joined": 1}

    async def after(scene):
        assert await scene.label({"id": "a", "value": 1}) == {"received": 1, "waiting": 1}

    play(before, state=False)
    play(after, state=False)
    assert not (tmp_path / FILE_NAME).exists()


def test_text_is_kept_and_joined_as_text(play):
    async def scenario(scene):
        await scene.infer("a", np.array([[b"cat", b"dog"]], object))
        await scene.label({"id": "a", "value": "cat"})
        (batch,) = scene.listener.batches
        assert batch.outputs["y"].tolist() == [["cat", "dog"]]
        assert batch.truth.tolist() == ["cat"]

    play(scenario, build=lambda: echo("BYTES"))


def test_of_a_wide_output_the_highest_value_is_kept(play):
    wide = np.linspace(0, 1, 1000, dtype=np.float32)[None, :]
    wide[0, 17] = 5.0

    async def scenario(scene):
        await scene.infer("a", wide)
        await scene.label({"id": "a", "value": 17})
        (batch,) = scene.listener.batches
        assert {name: array.tolist() for name, array in batch.outputs.items()} == {
            "y.top_index": [17],
            "y.top_value": [5.0],
        }

    play(scenario, build=lambda: echo("FP32"))


def test_a_prediction_of_several_values_has_a_truth_of_several(play):
    async def scenario(scene):
        await scene.infer("a", some(1))
        await scene.label({"id": "a", "value": [1, 2.5]})
        (batch,) = scene.listener.batches
        assert batch.truth.tolist() == [[1.0, 2.5]]

    play(scenario)


def test_of_an_id_that_comes_again_the_newest_prediction_is_meant(play):
    async def scenario(scene):
        await scene.infer("a", some(1))
        await scene.label({"id": "a", "value": 1})
        await scene.settle()
        await scene.infer("a", some(2))
        await scene.label({"id": "a", "value": 2})
        assert scene.listener.truths()[-1] == (y(2), 2.0)

    play(scenario)


def test_what_a_listener_finds_too_late_is_counted_and_its_errors_are_its_own(play):
    async def scenario(scene):
        broken = Listener(error=ValueError("not today"))
        broken.name = "broken"
        scene.truth.listen(broken)
        await scene.infer("a", some(1))
        assert await scene.label({"id": "a", "value": 1}) == {"received": 1, "joined": 1}
        assert scene.report()["too_late"] == {"test": 1}
        assert len(scene.listener.batches) == 1

    play(scenario, listener=Listener(too_late=1))


def test_a_model_that_keeps_no_predictions_says_how_it_would(play):
    async def scenario(scene):
        with pytest.raises(Conflict, match=r"add a table \[labels\] to its model.toml"):
            await scene.label({"id": "a", "value": 1})
        await scene.infer("a", some(1))
        assert scene.truth.subscription.accounts == {}
        assert scene.report()["settings"] is None

    play(scenario, "")


def test_a_wrong_label_is_refused_and_those_before_it_stand(play):
    async def scenario(scene):
        await scene.infer("a", some(1))
        lines = [json.dumps({"id": "a", "value": 1})] * 5000 + ['{"id": "a"}']
        with pytest.raises(InvalidRequest, match=r"label 5001: value is missing; the first 5000"):
            await scene.truth.submit("rows", "application/x-ndjson", "\n".join(lines).encode())
        assert counted(scene.report()) == {"received": 5000, "joined": 1, "duplicate": 4999}

    play(scenario)


def test_requests_with_labels_do_not_pile_up(play):
    async def scenario(scene):
        await scene.infer("a", some(1))
        answers = await asyncio.gather(
            *(scene.label({"id": "a", "value": 1}) for _ in range(ground_truth.MOST_POSTS + 3)),
            return_exceptions=True,
        )
        refused = [each for each in answers if isinstance(each, QueueFull)]
        assert len(refused) == 3
        assert len(answers) - len(refused) == scene.report()["received"]

    play(scenario)


def test_a_file_that_cannot_be_written_costs_what_came_meanwhile_and_says_so(play, tmp_path):
    async def scenario(scene):
        await scene.infer("a", some(1))
        await scene.settle()
        with sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            await scene.truth._run(
                lambda: scene.truth._store._database.execute("PRAGMA busy_timeout = 1")
            )
            with pytest.raises(StateUnavailable, match="of 1 none was"):
                await scene.label({"id": "a", "value": 1})
            await scene.infer("b", some(2))
            await scene.settle()
            other.execute("ROLLBACK")
        account = scene.truth.subscription.accounts["rows"]
        assert (account.served, account.delivered, account.lost) == (2, 1, {"storage": 1})
        assert await scene.label({"id": "a", "value": 1}) == {"received": 1, "joined": 1}

    play(scenario)


def test_a_file_of_something_else_is_refused(play, tmp_path):
    with sqlite3.connect(tmp_path / FILE_NAME) as other:
        other.execute("CREATE TABLE mine (x)")
    with pytest.raises(ConfigError, match="a database of something else"):
        play(None)


def test_settings_that_name_no_output_refuse_the_load(tmp_path):
    ModelDirectory(tmp_path).add("rows", rows, '[labels]\noutputs = ["z"]\n')

    async def scenario(plane):
        (failure,) = await plane.manager.start()
        assert "labels.outputs: 'z' is no output that is published; those are y" in failure

    on_plane(scenario, tmp_path, taps=PredictionStream())
