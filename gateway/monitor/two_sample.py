"""Have two samples of vectors one distribution? Tests that look at all columns together.

Both take their rows for independent draws. Rows of a stream that follow one another are often not,
and then small p-values come more often than they say.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.monitor.extras import require

Floats = npt.NDArray[np.float64]

#: Rows of the kernel that are in memory at once.
KERNEL_ROWS: Final = 256
#: Rows of which the median distance is taken.
MEDIAN_ROWS: Final = 500
FOLDS: Final = 2
PERMUTATIONS: Final = 500


class Classifier(StrEnum):
    """What is asked to tell the samples apart."""

    #: A random forest: finds changes of any kind; for columns that mean something each.
    FOREST = "forest"
    #: A logistic regression: finds shifts; for embeddings, where it sees more from fewer rows.
    LINEAR = "linear"


@dataclass(frozen=True, slots=True)
class TwoSampleResult:
    """What a test says.

    Attributes:
        value: the statistic.
        p_value: the chance of one at least as large where the distributions are the same.
        complete: false where the time ran out before all was done; the p-value holds all the same.
    """

    value: float
    p_value: float
    complete: bool = True


def mmd(
    reference: Floats,
    current: Floats,
    *,
    permutations: int = PERMUTATIONS,
    bandwidth: float | None = None,
    seed: int = 0,
) -> TwoSampleResult:
    """The squared maximum mean discrepancy, unbiased, under a Gaussian kernel.

    A. Gretton, K. Borgwardt, M. Rasch, B. Schoelkopf and A. Smola, 2012, "A kernel two-sample
    test". The p-value comes from permutations of the rows. Columns are scaled by the median and the
    quartiles of both samples together; the kernel is never in memory as a whole.

    Args:
        bandwidth: of ``exp(-d^2 / (2 bandwidth^2))``, for the columns as they are scaled; the
            median distance between rows by default.

    Raises:
        ValueError: a sample has fewer than two rows.
    """
    _check(reference, current)
    rows = _scaled(np.concatenate([reference, current]))
    count, first = len(rows), len(reference)
    random = np.random.default_rng(seed)
    if bandwidth is None:
        bandwidth = median_distance(rows, random)
    inside = np.zeros((count, 1 + permutations))
    inside[:first, 0] = 1
    for column in range(1, 1 + permutations):
        inside[random.permutation(count)[:first], column] = 1
    within, from_all = _kernel_sums(rows, inside, bandwidth)
    all_pairs = from_all.sum()
    first_pairs = (inside * within).sum(axis=0)
    between = (inside * from_all[:, None]).sum(axis=0) - first_pairs
    second_pairs = all_pairs - 2 * between - first_pairs
    second = count - first
    values = (
        first_pairs / (first * (first - 1))
        + second_pairs / (second * (second - 1))
        - 2 * between / (first * second)
    )
    # What differs by rounding alone is the same value.
    reached = values[1:] >= values[0] - 1e-12
    return TwoSampleResult(float(values[0]), float((1 + reached.sum()) / (1 + permutations)))


def median_distance(rows: Floats, random: np.random.Generator) -> float:
    """The median distance between two of ``rows``, of a choice of them; 1 where it is 0."""
    if len(rows) > MEDIAN_ROWS:
        rows = rows[random.choice(len(rows), MEDIAN_ROWS, replace=False)]
    distances = np.sqrt(_squared_distances(rows, rows))[np.triu_indices(len(rows), 1)]
    return float(np.median(distances)) or 1.0


def _kernel_sums(rows: Floats, inside: Floats, bandwidth: float) -> tuple[Floats, Floats]:
    """The kernel without its diagonal times ``inside``, and times ones."""
    within = np.empty_like(inside)
    from_all = np.empty(len(rows))
    for start in range(0, len(rows), KERNEL_ROWS):
        stop = min(start + KERNEL_ROWS, len(rows))
        kernel = np.exp(_squared_distances(rows[start:stop], rows) / (-2 * bandwidth**2))
        kernel[np.arange(stop - start), np.arange(start, stop)] = 0
        within[start:stop] = kernel @ inside
        from_all[start:stop] = kernel.sum(axis=1)
    return within, from_all


def _squared_distances(some: Floats, others: Floats) -> Floats:
    squares = (some**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * some @ others.T
    made: Floats = np.maximum(squares, 0.0)
    return made


def _scaled(rows: Floats) -> Floats:
    """By the median and the quartiles of each column; by its deviation where those are one."""
    low, middle, high = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
    spread = (high - low) / 1.349
    spread = np.where(spread > 0, spread, rows.std(axis=0))
    scaled: Floats = (rows - middle) / np.where(spread > 0, spread, 1.0)
    return scaled


def classifier_test(
    reference: Floats,
    current: Floats,
    *,
    classifier: Classifier = Classifier.FOREST,
    folds: int = FOLDS,
    seed: int = 0,
    budget_s: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> TwoSampleResult:
    """How well a classifier tells the samples apart: its cross-validated area under the ROC curve.

    D. Lopez-Paz and M. Oquab, 2017, "Revisiting classifier two-sample tests". In each fold the
    classifier is trained on the others, so that under one distribution the scores of the fold are
    exchangeable: its area is Mann and Whitney's, and standard normal once standardised. The folds'
    are not independent of each other: what one is trained on the other is tested on, and with two
    folds and a linear classifier they are all but equal. Their *mean* has a variance of 1 at most
    whatever binds them, so that its p-value is never too small.

    Args:
        budget_s: no further fold is begun after this many seconds by ``clock``.

    Raises:
        ValueError: a sample has fewer than ``2 * folds`` rows.
        ConfigError: scikit-learn is not installed.
    """
    _check(reference, current, 2 * folds)
    began = clock()
    rows = np.concatenate([reference, current])
    label = np.repeat([0, 1], [len(reference), len(current)])
    random = np.random.default_rng(seed)
    fold_of = np.empty(len(rows), np.int64)
    for which in (0, 1):
        places = random.permutation(np.flatnonzero(label == which))
        fold_of[places] = np.arange(len(places)) % folds
    areas, scores = [], []
    for fold in range(folds):
        if fold and clock() - began > budget_s:
            break
        test = fold_of == fold
        model = _make(classifier, seed)
        model.fit(rows[~test], label[~test])
        given = model.predict_proba(rows[test])[:, 1]
        area, deviation = mann_whitney(given[label[test] == 1], given[label[test] == 0])
        areas.append(area)
        scores.append((area - 0.5) / deviation if deviation else 0.0)
    p_value = 0.5 * math.erfc(float(np.mean(scores)) / math.sqrt(2))
    return TwoSampleResult(float(np.mean(areas)), p_value, len(areas) == folds)


def mann_whitney(above: Floats, below: Floats) -> tuple[float, float]:
    """The chance that a value of ``above`` is larger than one of ``below``, ties counting half.

    And its standard deviation where both have one distribution, with the correction for ties.
    """
    _, inverse, ties = np.unique(
        np.concatenate([above, below]), return_inverse=True, return_counts=True
    )
    ranks = (np.cumsum(ties) - (ties - 1) / 2)[inverse]
    first, second, count = len(above), len(below), len(above) + len(below)
    area = (ranks[:first].sum() - first * (first + 1) / 2) / (first * second)
    lost = float((ties.astype(np.float64) ** 3 - ties).sum()) / (count * (count - 1))
    return float(area), math.sqrt(max(count + 1 - lost, 0.0) / (12 * first * second))


def _make(classifier: Classifier, seed: int) -> Any:
    wanted_by = f"the two-sample test by a classifier ('{classifier}')"
    if classifier is Classifier.FOREST:
        ensemble = require("sklearn.ensemble", wanted_by)
        # One thread: the cores are for the answers.
        return ensemble.RandomForestClassifier(60, min_samples_leaf=5, n_jobs=1, random_state=seed)
    linear = require("sklearn.linear_model", wanted_by)
    pipeline = require("sklearn.pipeline", wanted_by)
    preprocessing = require("sklearn.preprocessing", wanted_by)
    return pipeline.make_pipeline(
        preprocessing.StandardScaler(), linear.LogisticRegression(C=0.1, max_iter=200)
    )


def _check(reference: Floats, current: Floats, least: int = 2) -> None:
    for name, rows in (("reference", reference), ("current", current)):
        if len(rows) < least:
            raise ValueError(f"the {name} sample has {len(rows)} rows, at least {least} are needed")
    if reference.shape[1:] != current.shape[1:]:
        raise ValueError(
            f"a row of the reference has {reference.shape[1:]} columns, one of the current sample "
            f"{current.shape[1:]}"
        )
