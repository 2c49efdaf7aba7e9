"""What the drift study found, as tables in ``docs/drift-study.md`` and a plot beside it."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

from loadtests.drift_parity import Parity
from loadtests.drift_suite import ASKED, LEVEL, LIMITS, TESTS

DOCUMENT, PLOT = "drift-study.md", "drift-study.svg"

Results = dict[str, Any]


def write(docs: Path, results: Results, parity: list[Parity]) -> None:
    """Put the tables into their places in the document, and write the plot."""
    path = docs / DOCUMENT
    text = path.read_text("utf-8")
    tables = {
        "data": data_table(results),
        "parity": parity_table(parity),
        "live": "\n\n".join(live_table(name, found) for name, found in results.items()),
        "performance": performance_table(results),
        "still": still_table(results),
        "changed": changed_table(results),
    }
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        head, _, rest = text.partition(begin)
        _, _, tail = rest.partition(end)
        text = f"{head}{begin}{table}{end}{tail}"
    path.write_text(text, "utf-8")
    (docs / PLOT).write_text(plot(results), "utf-8")


def too_many_false_alarms(results: Results) -> list[str]:
    """The tests that have more false alarms than their level allows, of those that have one."""
    return [
        f"{name}: {test} alarmed in {count} of {found['still']['windows']} still windows"
        for name, found in results.items()
        for test, count in found["still"]["alarmed"].items()
        if str(ASKED) in LIMITS[test] and count > LEVEL * found["still"]["windows"]
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def data_table(results: Results) -> str:
    return _table(
        ("data", "rows", "features", "trained on", "reference", "window", "origin", "licence"),
        (
            (
                name, f"{found['total']:,}", len(found["features"]), f"{found['trained']:,}",
                f"{found['reference']:,}", f"{found['window']:,} ({found['span']})",
                found["origin"], found["licence"],
            )
            for name, found in results.items()
        ),
    )  # fmt: skip


def parity_table(parity: list[Parity]) -> str:
    return _table(
        ("figure", "theirs", "ours"),
        ((one.what, f"{one.theirs:.9g}", f"{one.ours:.9g}") for one in parity),
    )


def live_table(name: str, found: dict[str, Any]) -> str:
    """Which features drift when, by each test."""
    windows = found["live"]["alarms"]
    rows = []
    for test in TESTS:
        if test == "chi_square" and not found["categories"]:
            continue
        alarmed = [number for number, alarms in enumerate(windows) if alarms[test]]
        features = Counter(feature for alarms in windows for feature in alarms[test] if feature)
        told = ", ".join(f"{feature} {count}" for feature, count in features.most_common(5))
        first = alarmed[0] if alarmed else "never"
        rows.append((test, f"{len(alarmed)} of {len(windows)}", first, told or "(all together)"))
    head = ("test", "windows with an alarm", "the first", "windows by feature, the five of most")
    streamed = f"{found['live']['rows']:,} rows came out of the stream as they were sent"
    return f"**{name}**: {streamed}.\n\n{_table(head, rows)}"


def performance_table(results: Results) -> str:
    rows = []
    for name, found in results.items():
        windows = found["live"]["performance"]
        low, high = found["live"]["range"]
        true = [window["accuracy"] for window in windows]
        guessed = [window["estimated_accuracy"] for window in windows]
        apart = [abs(a - b) for a, b in zip(true, guessed, strict=True)]
        surely = [number for number, window in enumerate(windows) if window["high"] < low]
        errors = found["live"]["errors"]
        rows.append(
            (
                name,
                f"{low:.3f} to {high:.3f}",
                f"{min(true):.3f} / {median(true):.3f} / {max(true):.3f}",
                f"{len(surely)} of {len(windows)}, the first {surely[0] if surely else 'never'}",
                f"{median(guessed):.3f}, {median(apart):.3f} off",
                *(_alarms(errors[test], found["window"]) for test in ("ddm", "eddm")),
            )
        )
    head = (
        "data", "reference's windows", "accuracy least / median / most", "windows surely below",
        "estimated without labels, median", "DDM", "EDDM",
    )  # fmt: skip
    return _table(head, rows)


def _alarms(rows: list[int], window: int) -> str:
    if not rows:
        return "never"
    return f"{len(rows)}, the first in window {rows[0] // window}"


def _by_test(results: Results, cell: Callable[[dict[str, Any], str], str]) -> str:
    head = ("test", *results, "its limit")
    rows = [
        (test, *(_told(found, test, cell) for found in results.values()), LIMITS[test])
        for test in TESTS
    ]
    return _table(head, rows)


def _told(found: dict[str, Any], test: str, cell: Callable[[dict[str, Any], str], str]) -> str:
    if test == "chi_square" and not found["categories"]:
        return "no categories"
    return cell(found, test)


def still_table(results: Results) -> str:
    def cell(found: dict[str, Any], test: str) -> str:
        windows, count = found["still"]["windows"], found["still"]["alarmed"].get(test, 0)
        return f"{count} ({count / windows:.1%})"

    return _by_test(results, cell)


def changed_table(results: Results) -> str:
    def cell(found: dict[str, Any], test: str) -> str:
        delays = found["changed"][test]
        seen = [delay for delay in delays if delay is not None]
        if not seen:
            return "not seen"
        missed = len(delays) - len(seen)
        return f"{median(seen):,.0f}" + (f" ({missed} of {len(delays)} not seen)" if missed else "")

    return _by_test(results, cell)


# -- the plot ---------------------------------------------------------------------------------

WIDTH, LEFT, RIGHT = 960, 190, 20
LINE, CHART, GAP = 16, 110, 46
INK, LABELLED, GUESSED, MARK = "#333", "#1f6fb2", "#d98200", "#b3261e"


def plot(results: Results) -> str:
    """Of each set the accuracy by window, and below it the windows in which each test alarms."""
    height_of_one = CHART + LINE * len(TESTS) + GAP + 30
    parts = []
    for place, (name, found) in enumerate(results.items()):
        parts.append(_panel(name, found, 20 + place * height_of_one))
    height = 20 + height_of_one * len(results)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="11" fill="{INK}">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(name: str, found: dict[str, Any], top: int) -> str:
    windows, alarms = found["live"]["performance"], found["live"]["alarms"]
    step = (WIDTH - LEFT - RIGHT) / len(windows)
    lines = {key: [window[key] for window in windows] for key in ("accuracy", "estimated_accuracy")}
    least = min(min(values) for values in lines.values()) - 0.01
    most = max(max(values) for values in lines.values()) + 0.01

    def y(value: float) -> float:
        return top + 20 + (most - value) / (most - least) * (CHART - 20)

    def points(values: list[float]) -> str:
        return " ".join(f"{LEFT + (n + 0.5) * step:.1f},{y(v):.1f}" for n, v in enumerate(values))

    low, high = (min(max(value, least), most) for value in found["live"]["range"])
    title = f"{name}: accuracy by window ({found['window']:,} rows, {found['span']})"
    made = [
        f'<text x="{LEFT}" y="{top + 8}" font-weight="bold">{escape(title)}</text>',
        f'<rect x="{LEFT}" y="{y(high):.1f}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{y(low) - y(high):.1f}" fill="#e8eef4"/>',
        f'<polyline fill="none" stroke="{LABELLED}" stroke-width="1.5" '
        f'points="{points(lines["accuracy"])}"/>',
        f'<polyline fill="none" stroke="{GUESSED}" stroke-width="1.5" stroke-dasharray="4 3" '
        f'points="{points(lines["estimated_accuracy"])}"/>',
        _text(LEFT - 6, y(most) + 8, f"{most:.2f}"),
        _text(LEFT - 6, y(least), f"{least:.2f}"),
        _text(LEFT - 60, y(most) + 8, "by labels", LABELLED),
        _text(LEFT - 60, y(most) + 24, "estimated", GUESSED),
        _text(LEFT - 60, y(most) + 40, "reference: shaded"),
    ]
    for number, test in enumerate(TESTS):
        base = top + CHART + 10 + number * LINE
        made.append(_text(LEFT - 6, base + 10, test))
        for place, alarmed in enumerate(alarms):
            if subjects := alarmed[test]:
                share = len(subjects) / len(found["features"]) if subjects != [""] else 1.0
                x, width = LEFT + place * step, max(step - 1, 1)
                made.append(
                    f'<rect x="{x:.1f}" y="{base}" width="{width:.1f}" '
                    f'height="{LINE - 4}" fill="{MARK}" opacity="{0.35 + 0.65 * share:.2f}"/>'
                )
    return "\n".join(made)


def _text(x: float, y: float, text: str, colour: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="end" fill="{colour}">{escape(text)}</text>'
