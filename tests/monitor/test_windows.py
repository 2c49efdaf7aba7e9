"""Where windows end: by count to the row, by time by the clock that is passed in."""

import numpy as np
import pytest

from gateway.monitor.monitor_file import WindowSettings
from gateway.monitor.spans import Span
from gateway.monitor.windows import Windows
from tests.monitor.streams import normal, numbers


def cut(windows, *blocks):
    """Rows of each part, and the windows that end, in the order in which they are given."""
    told = []
    for block in blocks:
        for part, window in windows.take(Span.of([block])):
            if part is not None:
                told.append(part.rows)
            if window is not None:
                told.append(window)
    return told


def ended(told):
    return [each for each in told if not isinstance(each, int)]


def test_a_window_by_count_ends_in_the_middle_of_a_block():
    told = cut(
        Windows(WindowSettings(rows=10)), *(numbers(normal(7), at=float(t)) for t in (1, 2, 3))
    )
    assert [each for each in told if isinstance(each, int)] == [7, 3, 4, 6, 1]
    assert [(w.number, w.rows, w.began, w.ended) for w in ended(told)] == [
        (0, 10, 1.0, 2.0),
        (1, 10, 2.0, 3.0),
    ]


def test_a_block_of_several_windows_ends_them_all():
    told = ended(cut(Windows(WindowSettings(rows=10)), numbers(normal(35))))
    assert [w.number for w in told] == [0, 1, 2]


def test_a_sliding_window_is_its_last_steps_and_full_once_there_are_so_many():
    told = ended(cut(Windows(WindowSettings(rows=30, step=10)), numbers(normal(50))))
    assert [(w.rows, w.full) for w in told] == [
        (10, False),
        (20, False),
        (30, True),
        (30, True),
        (30, True),
    ]


def test_windows_by_time_begin_at_whole_multiples_of_their_length():
    windows = Windows(WindowSettings(seconds=60, min_rows=2))
    assert windows.tick(130.0) is None
    assert ended(cut(windows, numbers(normal(5), at=131.0))) == []
    assert windows.tick(179.9) is None
    window = windows.tick(180.0)
    assert (window.began, window.ended, window.rows, window.judged) == (120.0, 180.0, 5, True)
    assert windows.tick(180.0) is None


def test_a_window_by_time_of_too_few_rows_is_not_judged():
    windows = Windows(WindowSettings(seconds=60, min_rows=10))
    cut(windows, numbers(normal(9), at=10.0))
    assert windows.tick(60.0).judged is False


def test_rows_of_a_later_step_end_the_windows_before_them():
    windows = Windows(WindowSettings(seconds=10, min_rows=1))
    told = cut(windows, numbers(normal(4), at=5.0), numbers(normal(2), at=25.0))
    assert [w.rows for w in ended(told)] == [4, 0]
    assert windows.tick(30.0).rows == 2


def test_after_a_long_sleep_the_windows_that_nobody_saw_are_left_out():
    windows = Windows(WindowSettings(seconds=10, step=5))
    cut(windows, numbers(normal(4), at=1.0))
    told = []
    while (window := windows.tick(1_000_000.0)) is not None:
        told.append(window)
    assert len(told) == 1
    assert told[0].rows == 4


def test_the_rows_of_several_blocks_know_when_they_were_answered():
    span = Span.of([numbers(normal(3), at=1.0), numbers(normal(2, seed=1), at=2.0)])
    assert [span.time(row) for row in range(5)] == [1.0, 1.0, 1.0, 2.0, 2.0]
    part = span.part(2, 4)
    assert [part.time(0), part.time(1)] == [1.0, 2.0]
    assert (part.block.inputs["x"] == span.block.inputs["x"][2:4]).all()


def test_a_request_that_is_cut_is_in_both_parts_with_its_rows():
    block = numbers(normal(9), requests=[2, 5, 2], number=100)
    span = Span.of([block])
    first, second = span.part(0, 4).block, span.part(4, 9).block
    assert first.request_rows.tolist() == [2, 2]
    assert second.request_rows.tolist() == [3, 2]
    assert (first.number, second.number) == (100, 104)
    assert np.concatenate([first.outputs["y"], second.outputs["y"]]) == pytest.approx(
        block.outputs["y"]
    )
