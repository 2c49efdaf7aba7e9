"""Drift of whole tensors: numbers, images and text, over bounded samples."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from gateway.monitor.findings import Level
from gateway.monitor.multivariate import LEAST_ROWS, Comparison, Content, MultivariateMonitor
from gateway.monitor.reservoir import RowReservoir
from gateway.monitor.vectors import ImageVectors, NumberVectors, TextVectors


def levels(watching: MultivariateMonitor) -> set[Level]:
    return {finding.level for finding in watching.findings()}


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    return np.random.default_rng(0).permutation(load_digits().images.astype(np.float32))


@pytest.mark.parametrize("content", [Content.NUMBERS, Content.IMAGES])
@pytest.mark.parametrize("change", ["darker", "blurred", "noisy"])
def test_images_of_another_camera_are_found_and_others_of_the_same_are_not(
    digits: np.ndarray, content: Content, change: str
) -> None:
    watching = MultivariateMonitor("pixels", reference=digits[:900], content=content)
    watching.add(digits[900:1300])
    assert levels(watching) == {Level.OK}
    other = digits[1300:].copy()
    if change == "darker":
        other *= 0.6
    elif change == "blurred":
        other[:, :, 1:] = (other[:, :, 1:] + other[:, :, :-1]) / 2
    else:
        other += np.random.default_rng(1).normal(0, 3, other.shape).astype(np.float32)
    watching.add(other)
    assert Level.DRIFTED in levels(watching)


def test_wide_rows_are_projected_and_their_drift_is_found() -> None:
    """Embeddings of 1,000 numbers, of which 200 move by a third of a deviation."""
    random = np.random.default_rng(1)
    watching = MultivariateMonitor("embedding", reference=random.normal(size=(800, 1000)))
    watching.add(random.normal(size=(600, 1000)))
    assert levels(watching) == {Level.OK}
    moved = random.normal(size=(600, 1000))
    moved[:, :200] += 1 / 3
    watching.add(moved)
    assert Level.DRIFTED in levels(watching)


def test_text_of_another_language_is_found() -> None:
    english = "the model serves every request and answers with the right class of it"
    german = "das Modell bedient jede Anfrage und antwortet mit der richtigen Klasse"
    words = {"en": english.split(" "), "de": german.split(" ")}
    random = np.random.default_rng(2)

    def texts(language: str, rows: int) -> np.ndarray:
        made = [" ".join(random.choice(words[language], 8)).encode() for _ in range(rows)]
        return np.array(made, object)[:, None]

    watching = MultivariateMonitor("text", reference=texts("en", 400), content=Content.TEXT)
    watching.add(texts("en", 300))
    assert levels(watching) == {Level.OK}
    watching.add(np.concatenate([texts("en", 200), texts("de", 100)]))
    assert levels(watching) == {Level.DRIFTED}


def test_without_a_reference_the_first_rows_are_it() -> None:
    random = np.random.default_rng(3)
    watching = MultivariateMonitor("x", sample_rows=200)
    watching.add(random.normal(size=(150, 3)))
    assert levels(watching) == {Level.NO_DATA}
    watching.add(random.normal(size=(450, 3)))
    assert levels(watching) == {Level.OK}
    watching.add(random.normal(1.0, 1.0, size=(400, 3)))
    assert levels(watching) == {Level.DRIFTED}


def test_too_few_rows_say_nothing_and_too_few_of_a_reference_are_refused() -> None:
    rows = np.zeros((LEAST_ROWS, 2))
    watching = MultivariateMonitor("x", reference=rows)
    watching.add(rows[:-1])
    for finding in watching.findings():
        assert (finding.level, finding.value) == (Level.NO_DATA, None)
        assert finding.detail == f"{LEAST_ROWS - 1} rows, {LEAST_ROWS} are needed"
    with pytest.raises(ValueError, match="at least 50 are needed"):
        MultivariateMonitor("x", reference=rows[:-1])


def test_no_test_is_begun_after_the_time_is_over() -> None:
    times = iter([0.0, 0.5, 0.6, 0.7, 5.0, 6.0])
    random = np.random.default_rng(4)
    watching = MultivariateMonitor(
        "x", reference=random.normal(size=(100, 2)), budget_s=1.0, clock=lambda: next(times)
    )
    watching.add(random.normal(5.0, 1.0, size=(100, 2)))
    first, second = watching.findings()
    assert first.test == Comparison.CLASSIFIER
    assert first.level is Level.DRIFTED
    assert first.detail == "of a part of the folds, after 1 s"
    assert (second.level, second.detail) == (Level.NO_DATA, "no time was left of 1 s")


def test_memory_does_not_grow_with_a_window() -> None:
    watching = MultivariateMonitor("x", reference=np.zeros((100, 4)), sample_rows=100)
    for _ in range(50):
        watching.add(np.zeros((10_000, 4)))
    assert watching._sample.rows.shape == (100, 4)


def test_a_reservoir_keeps_every_row_with_the_same_chance() -> None:
    counts = np.zeros(60)
    for seed in range(2000):
        kept = RowReservoir(10, seed)
        for start, stop in ((0, 4), (4, 5), (5, 35), (35, 60)):
            kept.add(np.arange(start, stop)[:, None])
        assert len(np.unique(kept.rows)) == 10
        counts[kept.rows[:, 0]] += 1
    expected = 2000 * 10 / 60
    assert ((counts - expected) ** 2 / expected).sum() < 100  # chi-square of 59: 99.9% below


def test_a_reservoir_with_room_keeps_all_in_order() -> None:
    kept = RowReservoir(10)
    kept.add(np.arange(4)[:, None])
    kept.add(np.arange(4, 7)[:, None])
    assert kept.rows[:, 0].tolist() == list(range(7))
    kept.clear()
    assert len(kept) == 0


def test_a_projection_keeps_distances() -> None:
    rows = np.random.default_rng(1).normal(size=(40, 5000))
    projected = NumberVectors(5000, 64, seed=2)(rows)
    true = np.linalg.norm(rows[:20] - rows[20:], axis=1)
    # The outputs are of the mean square of a column; 64 of them stand for 5,000.
    made = np.linalg.norm(projected[:20] - projected[20:], axis=1) * np.sqrt(5000 / 64)
    assert made.mean() == pytest.approx(true.mean(), rel=0.1)


def test_narrow_rows_stay_as_they_are_and_holes_are_filled() -> None:
    rows = np.array([[1.0, np.nan], [np.inf, 2.0]])
    assert NumberVectors(2)(rows).tolist() == [[1.0, 0.0], [0.0, 2.0]]


def test_an_image_is_described_alike_with_its_channels_first_or_last() -> None:
    images = np.random.default_rng(1).random((3, 16, 12, 3))
    described = ImageVectors()(images)
    assert described.shape == (3, 3 * 4 + 16)
    assert (described == ImageVectors()(np.moveaxis(images, 3, 1))).all()
    assert described[:, :3] == pytest.approx(images.mean(axis=(1, 2)))
    with pytest.raises(ValueError, match="the tensor's rows have the shape"):
        ImageVectors()(np.zeros((3, 16)))


def test_text_is_described_alike_as_bytes_and_str_and_as_one_element_or_several() -> None:
    rows = [["Ab 9é"], [b"Ab 9\xc3\xa9"], ["a"], [""]]
    described = TextVectors()(np.array(rows, object))
    assert (described[0] == described[1]).all()
    assert described[0, 1:6].tolist() == [0.2, 0.2, 0.2, 0.6, 0.2]
    assert np.isfinite(described).all()
    assert (described[0] == TextVectors()(np.array([["Ab", "9é"]], object))[0]).all()
