"""Rows of any tensor as short vectors of numbers, for tests that look at all columns at once.

A row of numbers stays as it is up to ``WIDTH`` of them and is projected at random beyond. Images
and text are described by what changes when a camera, a codec or a source of text does.
"""

import zlib
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: Numbers a row that tests are given at most.
WIDTH: Final = 64
#: Buckets for the n-grams of text, and their length in characters.
GRAM_BUCKETS: Final = 56
GRAM_LENGTH: Final = 3
#: Characters of a text that are looked at.
MOST_CHARACTERS: Final = 2000
#: Cells of the thumbnail of an image, along each side.
THUMBNAIL: Final = 4


class Vectors(Protocol):
    """Makes vectors of rows."""

    def __call__(self, rows: npt.NDArray[Any]) -> Floats:
        """A vector for each of ``rows``."""


class NumberVectors:
    """Rows of numbers: flat, and projected to ``width`` where they are wider.

    The projection is very sparse (P. Li, T. Hastie and K. Church, 2006, "Very sparse random
    projections"): each of its outputs adds and subtracts a random choice of sqrt(columns) columns.
    Distances are kept in expectation, and a row of 150,000 pixels costs 25,000 additions. What is
    not a number counts as ``fill`` (0 by default).

    Args:
        columns: numbers in a row.
        seed: the same seed gives the same projection.
    """

    def __init__(self, columns: int, width: int = WIDTH, seed: int = 0, fill: float = 0.0) -> None:
        self._fill = fill
        self._chosen: npt.NDArray[np.int64] | None = None
        if columns > width:
            random = np.random.default_rng(seed)
            count = int(np.ceil(np.sqrt(columns)))
            self._chosen = np.stack(
                [random.choice(columns, count, replace=False) for _ in range(width)]
            )
            self._signs = random.choice([-1.0, 1.0], size=(width, count))

    def __call__(self, rows: npt.NDArray[Any]) -> Floats:
        """See ``Vectors``."""
        flat = rows.reshape(len(rows), -1)
        if self._chosen is None:
            return self._filled(flat)
        made = np.empty((len(rows), len(self._chosen)))
        for place, (chosen, signs) in enumerate(zip(self._chosen, self._signs, strict=True)):
            made[:, place] = self._filled(flat[:, chosen]) @ signs
        made /= np.sqrt(self._chosen.shape[1])
        return made

    def _filled(self, values: npt.NDArray[Any]) -> Floats:
        numbers = values.astype(np.float64)
        return np.where(np.isfinite(numbers), numbers, self._fill)


class ImageVectors:
    """Images: of each channel the mean, the contrast and the sharpness, and a small grey thumbnail.

    Sharpness is the mean step between neighbouring pixels. For arrays of rows, height and width
    and channels last, or channels first where the second axis has no more than 4.
    """

    def __call__(self, rows: npt.NDArray[Any]) -> Floats:
        """See ``Vectors``; raises ``ValueError`` for rows that are no images."""
        images = _channels_last(rows).astype(np.float64)
        mean, contrast = images.mean(axis=(1, 2)), images.std(axis=(1, 2))
        steps = [np.abs(np.diff(images, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
        grey = images.mean(axis=3)
        cells = [
            cell.mean(axis=(1, 2))
            for band in np.array_split(grey, THUMBNAIL, axis=1)
            for cell in np.array_split(band, THUMBNAIL, axis=2)
        ]
        made: Floats = np.concatenate([mean, contrast, *steps, np.stack(cells, axis=1)], axis=1)
        return np.where(np.isfinite(made), made, 0.0)


def _channels_last(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if rows.ndim == 3:
        rows = rows[..., None]
    elif rows.ndim == 4 and rows.shape[1] <= 4 < rows.shape[3]:
        rows = np.moveaxis(rows, 1, 3)
    if rows.ndim != 4 or min(rows.shape[1:3]) < THUMBNAIL:
        raise ValueError(
            f"an image has rows, height and width, of at least {THUMBNAIL} pixels, and maybe "
            f"channels; the tensor's rows have the shape {rows.shape[1:]}"
        )
    return rows


class TextVectors:
    """Text: its length, the shares of kinds of characters, and hashed counts of its trigrams.

    The elements of a row are joined by a space. Counts are shares of a text's trigrams, under a
    square root, so that common ones do not drown the others.
    """

    def __call__(self, rows: npt.NDArray[Any]) -> Floats:
        """See ``Vectors``; for arrays of ``bytes`` or ``str``."""
        flat = rows.reshape(len(rows), -1)
        return np.stack([_described(_text(elements)) for elements in flat.tolist()])


def _text(elements: Sequence[Any]) -> str:
    parts = (e.decode("utf-8", "replace") if isinstance(e, bytes) else str(e) for e in elements)
    return " ".join(parts)


def _described(text: str) -> Floats:
    length = np.log1p(len(text))
    text = text[:MOST_CHARACTERS]
    count = max(len(text), 1)
    shares = [
        sum(map(str.isdigit, text)) / count,
        sum(map(str.isupper, text)) / count,
        sum(map(str.isspace, text)) / count,
        sum(map(str.isalpha, text)) / count,
        sum(character > "\x7f" for character in text) / count,
    ]
    grams = np.zeros(GRAM_BUCKETS)
    lowered = text.lower()
    for start in range(max(len(lowered) - GRAM_LENGTH + 1, 1)):
        gram = lowered[start : start + GRAM_LENGTH].encode("utf-8", "surrogatepass")
        grams[zlib.crc32(gram) % GRAM_BUCKETS] += 1
    return np.concatenate([[length], shares, np.sqrt(grams / max(grams.sum(), 1))])
