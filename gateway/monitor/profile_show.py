"""A reference profile for people: a line for each feature, with a small histogram."""

from typing import Final

from gateway.monitor.features import Part
from gateway.monitor.profile import CategoricalReference, FeatureProfile, NumericReference, Profile

_LEVELS: Final = " ▁▂▃▄▅▆▇█"
#: Characters of a histogram.
_WIDTH: Final = 24
#: Categories that are named.
_NAMED: Final = 4


def shown(profile: Profile) -> str:
    """The profile as lines of text."""
    source = profile.source
    lines = [
        f"profile of model '{profile.model}' version '{profile.version}'",
        f"  model     {profile.digest}",
        f"  data      {_clean(source.name)}, {source.rows} rows"
        + (f", sha256:{source.sha256[:12]}" if source.sha256 else ""),
        f"  made      {_clean(profile.made)}",
        f"  sample    {len(profile.sample)} rows"
        + "".join(
            f"; {_clean(name)} {len(rows)} rows of {rows.shape[1]}"
            for name, rows in profile.subjects.items()
        ),
        "",
    ]
    rows = [("feature", "of", "kind", "missing", "", "distribution")]
    rows += [_row(feature, profile) for feature in profile.features]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def _row(feature: FeatureProfile, profile: Profile) -> tuple[str, str, str, str, str, str]:
    reference = feature.reference
    if isinstance(reference, CategoricalReference):
        kind, picture = "categorical", bars(reference.counts.tolist())
        words = _categories(reference, feature.rows - feature.missing, _labels(feature, profile))
    else:
        kind, picture = "numeric", bars(reference.in_doane(reference.counts)[:-1].tolist())
        words = _numbers(reference)
    missing = f"{feature.missing_rate:.1%}" if feature.missing else "-"
    return (_clean(feature.name), str(feature.side), kind, missing, picture, words)


def _labels(feature: FeatureProfile, profile: Profile) -> tuple[str, ...]:
    """The names of the categories of a predicted class."""
    if feature.part is not Part.CLASS:
        return ()
    return next(t.labels for t in profile.layout.tensors if t.tensor == feature.tensor)


def _categories(reference: CategoricalReference, there: int, labels: tuple[str, ...]) -> str:
    named = [
        f"{_category(category, labels)} {count / max(there, 1):.1%}"
        for category, count in zip(
            reference.categories[:_NAMED], reference.counts[:_NAMED].tolist(), strict=True
        )
    ]
    rest = reference.distinct - len(named)
    return ", ".join(named) + (f", {rest} more" if rest > 0 else "")


def _category(category: str | float, labels: tuple[str, ...]) -> str:
    if isinstance(category, str):
        return repr(category)
    if 0 <= category < len(labels) and category == int(category):
        return _clean(labels[int(category)])
    return f"{category:g}"


def _numbers(reference: NumericReference) -> str:
    low, middle, high = (reference.quantiles[at] for at in (0, 5, 10))
    return (
        f"mean {reference.mean:.4g}, std {reference.std:.4g}, "
        f"least {low:.4g}, median {middle:.4g}, most {high:.4g}"
    )


def bars(counts: list[int]) -> str:
    """Counts as a row of bars; more than there is room for are added up with their neighbours."""
    if not counts:
        return ""
    run = -(-len(counts) // _WIDTH)
    sums = [sum(counts[at : at + run]) for at in range(0, len(counts), run)]
    most = max(*sums, 1)
    # Whatever is there is seen.
    return "".join(_LEVELS[-(-count * (len(_LEVELS) - 1) // most)] for count in sums)


def _clean(text: str) -> str:
    """``text`` without what a terminal might obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
