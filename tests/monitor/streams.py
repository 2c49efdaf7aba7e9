"""Predictions for the monitors' tests, as the stream publishes them."""

import numpy as np

from gateway.serving.signature import Signature
from gateway.stream.block import Block
from gateway.stream.columns import Column, Columns
from gateway.stream.stream import Source
from gateway.types import BYTES, DATATYPES

FP32 = DATATYPES["FP32"]
NUMBERS = Columns((Column("x", FP32, 0, 0, ("age", "height")),), (Column("y", FP32, 0, 0),))
WORDS = Columns((Column("word", BYTES, 0, 0),), ())


def numbers(x, at=0.0, number=0, requests=None, **changes):
    """Predictions of two numbers each, answered with their sum."""
    x = np.asarray(x, np.float32)
    given = {
        "number": number,
        "at": at,
        "request_rows": np.array(requests or [1] * len(x), np.int64),
        "latency_ns": np.ones(len(requests or x), np.int64),
        "ids": None,
        "event_ids": None,
        "inputs": {"x": x},
        "outputs": {"y": x.sum(axis=1, keepdims=True)},
    }
    return Block("model", "1", NUMBERS, **{**given, **changes})


def words(texts, at=0.0):
    """Predictions of a text each."""
    array = np.array(texts, object).reshape(-1, 1)
    return Block(
        "model",
        "1",
        WORDS,
        number=0,
        at=at,
        request_rows=np.array([len(texts)], np.int64),
        latency_ns=np.ones(1, np.int64),
        ids=None,
        event_ids=None,
        inputs={"word": array},
        outputs={},
    )


def source(path, columns=NUMBERS, version="1", digest="sha256:aa"):
    return Source("model", version, path, digest, Signature((), (), 0), columns)


def normal(rows, shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(shift, 1, (rows, 2))
