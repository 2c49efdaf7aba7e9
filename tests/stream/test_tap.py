"""What is published of a model's answers, over real models behind a real control plane."""

import asyncio

import numpy as np
import pytest

from gateway.errors import InferenceFailed, InvalidTensor
from gateway.stream.stream import PredictionStream
from gateway.stream.subscription import Subscription
from gateway.types import DATATYPES, InferInput, InferRequest
from tests.control.plane import on_plane
from tests.repository import ModelDirectory, echo, lookup, rows, rows_of, slow


class Subscriber:
    """Takes what it is given when the test says so."""

    def __init__(self, **options):
        self.notified = 0
        self.told = lambda: None
        self.subscription = Subscription("test", notify=self._notify, **options)
        self.stream = PredictionStream()
        self.stream.subscribe(self.subscription)

    def _notify(self):
        self.notified += 1
        self.told()

    def take(self, **limits):
        """What has been published, and what was gathered for it."""
        self.stream.flush()
        blocks = self.subscription.take(**limits)
        self.subscription.delivered(blocks)
        return blocks

    def account(self, model):
        self.stream.flush()
        return self.subscription.accounts[model]


def adds_up(account):
    return account.served == (
        account.sampled_out
        + sum(account.dropped.values())
        + account.delivered
        + sum(account.lost.values())
        + account.buffered
    )


@pytest.fixture
def published(tmp_path):
    """Serves models with a subscriber to their predictions: ``published(scenario, **models)``."""

    def run(scenario, *, subscriber=None, **models):
        directory = ModelDirectory(tmp_path)
        for name, (build, settings) in models.items():
            directory.add(name, build, settings)
        subscriber = subscriber or Subscriber(wants_ids=True)
        taps = subscriber.stream
        on_plane(lambda plane: start(plane, scenario, subscriber), tmp_path, taps=taps)
        return subscriber

    async def start(plane, scenario, subscriber):
        assert await plane.manager.start() == []
        await scenario(plane, subscriber)

    return run


def request(model, array, id="", metadata=None, name="x"):
    by_dtype = {d.numpy: d for d in DATATYPES.values() if d.name != "BF16"}
    data = array if array.dtype == object else array.tobytes()
    given = InferInput(name, by_dtype[array.dtype], array.shape, data)
    return InferRequest(model, "", id, [given], None, {}, 0, 1, metadata)


def some_rows(count, start=0):
    return (start + np.arange(4 * count, dtype=np.float32)).reshape(count, 4)


@pytest.mark.parametrize("inline", ["true", "false"], ids=["on the loop", "threads"])
def test_every_request_is_published_with_its_own_rows_and_id(published, inline):
    async def scenario(plane, subscriber):
        given = {f"r{n}": some_rows(count, 100 * n) for n, count in enumerate([1, 3, 2, 1])}
        await asyncio.gather(
            *(plane.dispatcher.infer(request("rows", x, id)) for id, x in given.items())
        )
        found = [p for block in subscriber.take() for p in block.predictions()]
        assert {p.id: p.inputs["x"].tolist() for p in found} == {
            id: x.tolist() for id, x in given.items()
        }
        for p in found:
            assert (p.outputs["y"] == rows_of(given[p.id])).all()
            assert p.latency_ns > 0
        account = subscriber.account("rows")
        assert (account.served, account.delivered) == (7, 7)

    published(scenario, rows=(rows, f"inline = {inline}\n"))


def test_a_block_outlives_the_batches_that_follow(published):
    async def scenario(plane, subscriber):
        for n in range(5):
            await plane.infer("rows", x=some_rows(1, n))
            subscriber.stream.flush()
        blocks = subscriber.take()
        assert [b.inputs["x"][0, 0] for b in blocks] == [0, 1, 2, 3, 4]
        assert [b.number for b in blocks] == [0, 1, 2, 3, 4]
        ids = [next(b.predictions()).id.rsplit("-", 1) for b in blocks]
        assert [number for _, number in ids] == ["0", "1", "2", "3", "4"]
        (made,) = {name for name, _ in ids}
        assert made.startswith("rows-1-")

    published(scenario, rows=(rows, ""))


def test_small_batches_are_published_together(published):
    async def scenario(plane, subscriber):
        given = {f"r{n}": some_rows(1 + n % 3, 10 * n) for n in range(50)}
        for id, x in given.items():
            await plane.dispatcher.infer(request("rows", x, id))
        (block,) = subscriber.take()
        assert block.request_rows.tolist() == [len(x) for x in given.values()]
        for p in block.predictions():
            assert p.inputs["x"].tolist() == given[p.id].tolist()
            assert p.outputs["y"].tolist() == rows_of(given[p.id]).tolist()

    published(scenario, rows=(rows, ""))


def test_what_was_gathered_is_published_when_there_is_no_room_for_more(published):
    async def scenario(plane, subscriber):
        for n in range(60):
            await plane.dispatcher.infer(request("rows", some_rows(100, n)))
        subscriber.stream.flush()
        blocks = subscriber.subscription.take()
        assert [block.rows for block in blocks] == [2000, 2000, 2000]
        numbers = np.concatenate([block.inputs["x"][::100, 0] for block in blocks])
        assert numbers.tolist() == list(range(60))

    published(scenario, rows=(rows, "max_batch_size = 100\n"))


def test_requests_of_no_rows_do_not_fill_what_gathers_for_ever(published):
    async def scenario(plane, subscriber):
        for _ in range(2100):
            await plane.dispatcher.infer(request("rows", some_rows(0)))
        for n in range(3):
            await plane.dispatcher.infer(request("rows", some_rows(1, n)))
        (block,) = subscriber.take()
        assert block.inputs["x"][:, 0].tolist() == [0, 1, 2]

    published(scenario, rows=(rows, ""))


def test_what_was_gathered_is_published_after_a_moment(published):
    async def scenario(plane, subscriber):
        told = asyncio.Event()
        subscriber.told = told.set
        await plane.infer("rows", x=some_rows(2))
        await asyncio.wait_for(told.wait(), 30)
        assert [block.rows for block in subscriber.subscription.take()] == [2]

    published(scenario, rows=(rows, ""))


def test_who_comes_later_gets_nothing_of_what_was_gathered_before(published):
    async def scenario(plane, subscriber):
        await plane.infer("rows", x=some_rows(1))
        late = Subscription("late", notify=lambda: None)
        subscriber.stream.subscribe(late)
        await plane.infer("rows", x=some_rows(2))
        assert [block.rows for block in subscriber.take()] == [1, 2]
        assert [block.rows for block in late.take()] == [2]
        assert late.accounts["rows"].served == 2

    published(scenario, rows=(rows, ""))


def test_of_a_large_request_that_was_run_where_it_lay_its_inputs_are_published(published):
    wide = np.arange(64_000, dtype=np.float32).reshape(1, -1)

    async def scenario(plane, subscriber):
        await plane.infer("echo", x=wide)
        (block,) = subscriber.take()
        assert (block.inputs["x"] == wide).all()
        assert (block.outputs["y"] == wide).all()

    published(scenario, echo=(lambda: echo("FP32"), ""))


def test_text_is_published_as_it_came(published):
    words = np.array([[b"a", b"bc"]], object)

    async def scenario(plane, subscriber):
        await plane.dispatcher.infer(request("words", words))
        (block,) = subscriber.take()
        assert block.inputs["x"].tolist() == [[b"a", b"bc"]]

    published(scenario, words=(lambda: echo("BYTES"), ""))


def test_a_model_without_batches_publishes_a_row_a_request(published):
    async def scenario(plane, subscriber):
        await plane.infer("slow", steps=np.array([3], np.int64))
        (block,) = subscriber.take()
        assert block.rows == 1
        assert block.inputs["steps"].tolist() == [[3]]
        assert block.outputs["y"].tolist() == [[3.0]]

    published(scenario, slow=(slow, ""))


def test_a_request_in_slices_is_published_slice_by_slice_under_its_id(published):
    async def scenario(plane, subscriber):
        await plane.dispatcher.infer(request("rows", some_rows(5), "long"))
        found = [p for block in subscriber.take() for p in block.predictions()]
        assert {p.id for p in found} == {"long"}
        assert np.concatenate([p.inputs["x"] for p in found]).tolist() == some_rows(5).tolist()

    published(scenario, rows=(rows, "max_batch_size = 2\n"))


def test_requests_that_were_run_again_one_by_one_are_counted_as_dropped(published):
    async def scenario(plane, subscriber):
        right, wrong = np.array([[3]], np.int64), np.array([[300]], np.int64)
        outcomes = await asyncio.gather(
            *(
                plane.dispatcher.infer(request("lookup", x, name="index"))
                for x in (right, wrong, right)
            ),
            return_exceptions=True,
        )
        assert isinstance(outcomes[1], (InferenceFailed, InvalidTensor))
        account = subscriber.account("lookup")
        assert account.served == 2
        assert account.dropped == {"rerun": 2}
        assert subscriber.take() == []

    published(scenario, lookup=(lookup, ""))


def test_a_cancelled_request_is_not_published(published):
    async def scenario(plane, subscriber):
        replies = []
        submit = plane.dispatcher.submit
        submit(request("rows", some_rows(1), "stays"), replies.append)
        leaves = submit(request("rows", some_rows(2, 50), "leaves"), replies.append)

        def leave(answer):
            leaves.cancel()

        submit(request("rows", some_rows(1, 90), "also"), leave)
        await plane.infer("rows", x=some_rows(1, 200))
        ids = [p.id for b in subscriber.take() for p in b.predictions()]
        assert "stays" in ids
        assert adds_up(subscriber.account("rows"))

    published(scenario, rows=(rows, ""))


def test_a_full_buffer_drops_and_counts_and_the_caller_is_answered(published):
    async def scenario(plane, subscriber):
        for n in range(10):
            answer = await plane.infer("rows", x=some_rows(2, n))
            subscriber.stream.flush()
            assert (answer.outputs[0].array == rows_of(some_rows(2, n))).all()
        account = subscriber.account("rows")
        assert account.dropped["buffer_full"] > 0
        assert account.served == 20
        assert adds_up(account)
        subscriber.take()
        await plane.infer("rows", x=some_rows(1))
        assert subscriber.take() != []
        assert adds_up(account)
        assert account.buffered == 0

    published(scenario, subscriber=Subscriber(max_bytes=2000), rows=(rows, ""))


def test_requests_are_sampled_at_the_models_rate_and_the_rest_is_counted(published):
    async def scenario(plane, subscriber):
        await asyncio.gather(
            *(
                plane.dispatcher.infer(request("rows", some_rows(1 + n % 3, n), f"{n}"))
                for n in range(600)
            )
        )
        found = [p for block in subscriber.take() for p in block.predictions()]
        account = subscriber.account("rows")
        assert account.served == 1200
        assert account.sampled_out == 1200 - sum(p.rows for p in found)
        assert 100 < len(found) < 200, "a quarter of 600, within 5 standard deviations"
        for p in found:
            n = int(p.id)
            assert p.inputs["x"].tolist() == some_rows(1 + n % 3, n).tolist()

    published(scenario, rows=(rows, "[stream]\nsample = 0.25\n"))


def test_a_rate_of_nothing_publishes_nothing(published):
    async def scenario(plane, subscriber):
        await plane.infer("rows", x=some_rows(3))
        assert subscriber.take() == []
        assert subscriber.account("rows").sampled_out == 3

    published(scenario, rows=(rows, "[stream]\nsample = 0.0\n"))


SETTINGS = """
[stream]
drop = ["age", "y[4]"]
redact = ["name"]
[inputs.x]
features = ["age", "name", "height", "weight"]
"""


def test_features_are_dropped_and_redacted_before_anything_is_published(published):
    async def scenario(plane, subscriber):
        await plane.infer("rows", x=some_rows(2))
        (block,) = subscriber.take()
        (column,) = block.columns.inputs
        assert column.features == ("name", "height", "weight")
        assert np.isnan(block.inputs["x"][:, 0]).all()
        assert block.inputs["x"][:, 1:].tolist() == some_rows(2)[:, 2:].tolist()
        assert block.outputs["y"].shape == (2, 4)

    published(scenario, rows=(rows, SETTINGS))


def test_of_what_is_to_be_kept_everything_else_is_left_out(published):
    async def scenario(plane, subscriber):
        await plane.infer("rows", x=some_rows(2))
        (block,) = subscriber.take()
        assert block.inputs["x"].tolist() == some_rows(2)[:, [1, 3]].tolist()
        assert block.outputs == {}

    published(scenario, rows=(rows, '[stream]\nkeep = ["x[1]", "x[3]"]\n'))


def test_settings_that_name_nothing_of_the_model_refuse_its_load(tmp_path):
    ModelDirectory(tmp_path).add("rows", rows, '[stream]\ndrop = ["agee"]\n')

    async def scenario(plane):
        (failure,) = await plane.manager.start()
        assert "stream.drop: 'agee' is neither a tensor nor a feature" in failure

    on_plane(scenario, tmp_path, taps=PredictionStream())


def test_the_id_of_the_event_that_a_request_is_comes_with_it(published):
    async def scenario(plane, subscriber):
        await plane.dispatcher.infer(request("rows", some_rows(1), "a", {b"ce-id": b"event-7"}))
        await plane.dispatcher.infer(request("rows", some_rows(1), "b"))
        assert [(b.ids, b.event_ids) for b in subscriber.take()] == [(["a", "b"], ["event-7", ""])]

    published(
        scenario, subscriber=Subscriber(wants_ids=True, wants_event_ids=True), rows=(rows, "")
    )


def test_a_subscriber_gets_the_models_that_it_watches(published):
    async def scenario(plane, subscriber):
        await plane.infer("fraud", x=some_rows(1))
        await plane.infer("spam", x=some_rows(1))
        assert [block.model for block in subscriber.take()] == ["fraud"]
        assert set(subscriber.subscription.accounts) == {"fraud"}

    published(scenario, subscriber=Subscriber(models=("fr*",)), fraud=(rows, ""), spam=(rows, ""))


def test_a_subscriber_is_told_once_until_it_looks(published):
    async def scenario(plane, subscriber):
        for n in range(3):
            await plane.infer("rows", x=some_rows(1, n))
            subscriber.stream.flush()
        assert subscriber.notified == 1
        assert len(subscriber.take(max_rows=2)) == 2
        await plane.infer("rows", x=some_rows(1))
        subscriber.stream.flush()
        assert subscriber.notified == 2
        assert len(subscriber.take()) == 2

    published(scenario, rows=(rows, ""))
