"""The classification extension: the best classes of each row, best first."""

import numpy as np
import pytest

from gateway.dispatch.classification import classify
from gateway.errors import InvalidTensor
from gateway.serving.signature import TensorSpec
from gateway.types import BF16, BYTES, FP32


def spec(axis=0, labels=(), datatype=FP32):
    return TensorSpec("scores", datatype, (-1, 3), ("", ""), axis, labels)


SCORES = np.float32([[0.1, 0.7, 0.2], [0.5, 0.0, 0.5]])


def test_each_row_gives_its_best_classes():
    top = classify(SCORES, spec(), 2)
    assert top.tolist() == [
        [b"0.700000:1", b"0.200000:2"],
        [b"0.500000:0", b"0.500000:2"],
    ], "of equal scores the lower index comes first"


def test_labels_follow_the_index_where_there_are_any():
    top = classify(SCORES[:1], spec(labels=("cat", "dog")), 3)
    assert top.tolist() == [[b"0.700000:1:dog", b"0.200000:2", b"0.100000:0:cat"]]


def test_more_classes_than_there_are_gives_all():
    assert classify(SCORES, spec(), 99).shape == (2, 3)


def test_without_a_batch_axis_all_of_it_is_one_row():
    assert classify(SCORES, spec(axis=None), 1).tolist() == [b"0.700000:1"]


def test_no_rows_give_no_rows():
    assert classify(SCORES[:0], spec(), 2).shape == (0, 2)


def test_bf16_is_ranked_by_value_not_by_its_bits():
    values = np.float32([[-1.0, 0.5, 2.0]])
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    assert classify(bits, spec(datatype=BF16), 3).tolist() == [
        [b"2.000000:2", b"0.500000:1", b"-1.000000:0"]
    ]


@pytest.mark.parametrize("wrong", [spec(datatype=BYTES), spec(axis=1)])
def test_what_cannot_be_ranked_is_refused(wrong):
    with pytest.raises(InvalidTensor, match="classification ranks numbers, rows first"):
        classify(SCORES, wrong, 1)
