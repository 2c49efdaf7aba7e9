"""Reference profiles: made, counted by, written, read and refused."""

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from sklearn.datasets import load_breast_cancer, load_wine

from gateway.errors import ConfigError
from gateway.monitor.counts import CategoryTally, FeatureCounts, NumericCounts
from gateway.monitor.features import UnlikeBlock
from gateway.monitor.profile import CategoricalReference, NumericReference, ProfileSource
from gateway.monitor.profile_builder import ProfileBuilder, ProfileOptions, numeric_reference
from gateway.monitor.profile_file import document_of, profile_from, read_profile, write_profile
from gateway.monitor.profile_show import bars, shown
from tests.monitor.blocks import block

DIGEST = "sha256:" + "ab" * 32
SOURCE = ProfileSource(name="train.csv", rows=300, sha256="cd" * 32)
CITIES = ["Bern", "Basel", "Genf", "Chur"]


def people(rows: int, seed: int, shift: float = 0.0):
    random = np.random.default_rng(seed)
    table = np.column_stack(
        [
            random.normal(40 + shift, 10, rows),
            random.lognormal(size=rows),
            random.integers(0, 4, rows),
        ]
    ).astype(np.float32)
    table[random.random(rows) < 0.1, 1] = np.nan
    city = random.choice(CITIES, rows).astype(object)
    city[random.random(rows) < 0.05] = ""
    scores = random.dirichlet([2, 1, 1], rows).astype(np.float32)
    return block(
        {"x": table, "city": city},
        {"p": scores},
        features={"x": ["age", "income", "children"]},
    )


def built(rows: int = 600, **options: Any):
    builder = ProfileBuilder(rows, ProfileOptions(**options), {"p": ["no", "maybe", "yes"]})
    for seed in range(10):
        if builder.add(people(100, seed)):
            break
    return builder.profile(DIGEST, SOURCE)


def nannyml_js(reference: np.ndarray, window: np.ndarray) -> float:
    """NannyML's distance of raw values: Doane bins of the reference and one for the rest."""
    edges = np.histogram_bin_edges(reference.astype(np.float64), bins="doane")
    p = np.histogram(reference, edges)[0] / len(reference)
    q = np.histogram(window, edges)[0] / len(window)
    rest = 1 - q.sum()
    if rest > 0:
        p, q = np.append(p, 0), np.append(q, rest)
    return float(jensenshannon(p, q, base=2))


def counted_js(reference: NumericReference, counts: np.ndarray) -> float:
    p, q = reference.in_doane(reference.counts), reference.in_doane(counts)
    return float(jensenshannon(p / p.sum(), q / q.sum(), base=2))


@pytest.mark.parametrize("data", [load_breast_cancer, load_wine], ids=["cancer", "wine"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counters_give_nannymls_jensen_shannon_distance_exactly(data, dtype):
    table = data().data.astype(dtype)
    half = len(table) // 2
    builder = ProfileBuilder(options=ProfileOptions(few=0))
    for part in np.array_split(table[:half], 5):
        builder.add(block({"x": part}))
    profile = builder.profile(DIGEST, SOURCE)
    counts = FeatureCounts(profile)
    for part in np.array_split(table[half:], 7):
        counts.add(block({"x": part}))
    for column, (feature, seen) in enumerate(counts.features()):
        assert isinstance(feature.reference, NumericReference)
        assert isinstance(seen, NumericCounts)
        raw = nannyml_js(table[:half, column], table[half:, column])
        assert counted_js(feature.reference, seen.counts) == pytest.approx(raw, abs=1e-12)


def test_the_same_counts_give_the_tenths_of_the_reference():
    random = np.random.default_rng(1)
    reference, window = random.normal(size=1000), random.normal(0.3, 1.4, 777)
    made = numeric_reference(reference)
    tenths = [-np.inf, *np.quantile(reference, np.arange(1, 10) / 10), np.inf]
    exact = [((window >= a) & (window < b)).sum() for a, b in itertools.pairwise(tenths)]
    counts = np.histogram(
        window, [-np.inf, *made.edges[:-1], np.nextafter(made.edges[-1], 9), np.inf]
    )
    assert made.in_tenths(counts[0]).tolist() == exact
    assert made.in_tenths(made.counts).tolist() == [100] * 10


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.floats(-1e308, 1e308), st.sampled_from([0.0, 1.0, np.inf, -np.inf, 1e300, 5e-324])
        ),
        max_size=60,
    )
)
def test_any_numbers_have_a_reference_that_can_be_written_and_read(values):
    column = np.array([*values, np.nan])
    builder = ProfileBuilder(options=ProfileOptions(numeric=("x",)))
    builder.add(block({"x": column}))
    profile = builder.profile(DIGEST, SOURCE)
    again = profile_from(json.loads(json.dumps(document_of(profile), allow_nan=False)))
    reference = again.features[0].reference
    assert isinstance(reference, NumericReference)
    assert reference.counts.sum() == len(values)
    assert reference.in_doane(reference.counts).sum() == len(values)
    assert reference.in_tenths(reference.counts).sum() == len(values)
    counts = FeatureCounts(again)
    counts.add(block({"x": column}))
    ((_, seen),) = counts.features()
    assert seen.counts.tolist() == reference.counts.tolist()


def test_features_have_the_kind_that_their_values_have():
    profile = built()
    kinds = {f.name: type(f.reference) for f in profile.features}
    assert kinds == {
        "age": NumericReference,
        "income": NumericReference,
        "children": CategoricalReference,
        "city": CategoricalReference,
        "p[0]": NumericReference,
        "p[1]": NumericReference,
        "p[2]": NumericReference,
        "p.class": CategoricalReference,
    }
    city = profile.feature("city")
    assert isinstance(city.reference, CategoricalReference)
    assert sorted(city.reference.categories) == sorted(CITIES)
    assert city.reference.counts.sum() + city.missing == 600
    assert 0.02 < city.missing_rate < 0.1
    assert profile.feature("income").missing > 30


def test_the_owner_decides_where_values_mislead():
    profile = built(numeric=("children",), categorical=("age",), most_categories=5)
    assert isinstance(profile.feature("children").reference, NumericReference)
    age = profile.feature("age").reference
    assert isinstance(age, CategoricalReference)
    assert (len(age.categories), age.distinct) == (5, 600)
    assert age.counts.sum() + age.other == 600
    with pytest.raises(ConfigError, match="numeric: there is no feature 'shoes'; known are age"):
        built(numeric=("shoes",))


def test_a_profile_is_of_exactly_the_rows_that_were_wanted():
    builder = ProfileBuilder(250)
    assert [builder.add(people(100, seed)) for seed in range(4)] == [False, False, True, True]
    profile = builder.profile(DIGEST, SOURCE)
    assert profile.rows == 250
    assert {feature.rows for feature in profile.features} == {250}
    ages = np.concatenate([people(100, seed).inputs["x"][:, 0] for seed in range(3)])[:250]
    reference = profile.feature("age").reference
    assert (reference.minimum, reference.maximum) == (ages.min(), ages.max())


def test_one_row_alone_does_not_say_that_an_output_is_of_probabilities():
    builder = ProfileBuilder()
    scores = np.array([[0.5, 0.5], [3, 4], [0.25, 0.75]])
    for row in scores:
        builder.add(block({"x": np.zeros(1)}, {"y": row[None]}))
    profile = builder.profile(DIGEST, SOURCE)
    assert [feature.name for feature in profile.features] == ["x", "y[0]", "y[1]"]
    assert profile.feature("y[1]").reference.maximum == 4


def test_a_stream_is_counted_by_the_profile():
    profile = built()
    windows = [people(100, 100 + at, shift=50) for at in range(4)]
    counts, merged = FeatureCounts(profile), FeatureCounts(profile)
    for window in windows:
        counts.add(window)
        part = FeatureCounts(profile)
        part.add(window)
        merged.merge(FeatureCounts.from_bytes(profile, part.to_bytes()))
    assert counts.rows == merged.rows == 400
    x = np.concatenate([window.inputs["x"] for window in windows])
    for (feature, seen), (_, other) in zip(counts.features(), merged.features(), strict=True):
        assert seen.rows == 400
        assert seen.counts.tolist() == other.counts.tolist()
        if feature.name == "age":
            assert seen.mean == pytest.approx(x[:, 0].mean(), rel=1e-6)
            assert seen.out_of_range > 100
        if feature.name == "income":
            assert seen.missing == np.isnan(x[:, 1]).sum()
        if feature.name == "children":
            assert isinstance(seen, CategoryTally)
            assert seen.counts.sum() == 400
    counts.clear()
    assert counts.rows == 0
    assert all(not seen.counts.any() for _, seen in counts.features())


def test_counts_of_another_profile_or_of_changed_bytes_are_refused():
    profile, other = built(), built(seed=3, few=0)
    counts = FeatureCounts(profile)
    counts.add(people(100, 3))
    data = counts.to_bytes()
    with pytest.raises(ValueError, match=r"not a readable sketch|can be merged"):
        FeatureCounts.from_bytes(other, data)
    with pytest.raises(ValueError, match="not a readable sketch"):
        FeatureCounts.from_bytes(profile, data[:-1])
    counts.rows += 1
    with pytest.raises(ValueError, match="other rows"):
        FeatureCounts.from_bytes(profile, counts.to_bytes())


def test_new_categories_are_counted_by_name():
    counts = FeatureCounts(built())
    made = people(50, 3)
    made.inputs["city"][:] = ["Bern", b"Bern", "Thun", "Thun", None] * 10
    counts.add(made)
    (city,) = [seen for feature, seen in counts.features() if feature.name == "city"]
    assert city.other == 20
    assert city.new == (("Thun", 20),)
    assert city.missing == 10


def test_rows_are_encoded_as_the_sample_is():
    profile = built(sample_rows=50)
    assert profile.sample.shape == (50, 8)
    made = people(100, 0)
    made.inputs["city"][:2] = ["Thun", ""]
    rows = profile.encode(made)
    city = profile.feature("city").reference
    assert rows[0, 3] == len(city.categories)
    assert np.isnan(rows[1, 3])
    assert city.categories[int(rows[2, 3])] == made.inputs["city"][2]
    np.testing.assert_array_equal(rows[:, 0], made.inputs["x"][:, 0])
    # What the sample holds are rows of the reference.
    reference = {tuple(row) for seed in range(6) for row in people(100, seed).inputs["x"][:, :1]}
    assert {(np.float32(age),) for age in profile.sample[:, 0]} <= reference


def test_subjects_of_wide_tensors_are_sampled():
    builder = ProfileBuilder(options=ProfileOptions(sample_rows=10))
    images = np.random.default_rng(1).normal(size=(40, 30, 30)).astype(np.float32)
    builder.add(block({"image": images}))
    profile = builder.profile(DIGEST, SOURCE)
    assert profile.subjects["image"].shape == (10, 900)
    assert [feature.name for feature in profile.features] == ["image.mean", "image.std"]


def test_a_profile_comes_back_as_it_was_written(tmp_path: Path):
    profile = built()
    write_profile(tmp_path / "profile.json", profile)
    assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]
    again = read_profile(tmp_path / "profile.json", DIGEST)
    assert document_of(again) == document_of(profile)
    np.testing.assert_array_equal(again.sample, profile.sample)
    assert again.layout == profile.layout


def test_the_same_data_make_the_same_profile():
    first, second = document_of(built()), document_of(built())
    first.pop("made"), second.pop("made")
    assert first == second


def test_a_profile_of_another_model_is_refused(tmp_path: Path):
    write_profile(tmp_path / "p.json", built())
    with pytest.raises(
        ConfigError, match=r"p\.json: digest is sha256:ab.* the model's is sha256:00"
    ):
        read_profile(tmp_path / "p.json", "sha256:00")


def change(path: str, value: Any):
    """Sets one place of a document, ``a.0.b``; ``DROP`` takes it away."""

    def apply(document: Any) -> None:
        *way, last = path.split(".")
        for key in way:
            document = document[int(key) if isinstance(document, list) else key]
        key = int(last) if isinstance(document, list) else last
        if value is DROP:
            del document[key]
        else:
            document[key] = value

    return apply


DROP = object()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", "else", 'format must be "onnx-gateway profile"'),
        ("format_version", 2, "format_version is 2; this gateway reads 1"),
        ("digest", DROP, "digest is missing"),
        ("digest", 3, "digest must be text"),
        ("rows", 599, r"features\[0\]\.counts add up to 600"),
        ("rows", 2**60, "rows must be at most"),
        ("extra", 1, "unknown key 'extra'"),
        ("source.rows", -1, r"source\.rows must be an integer of at least 0"),
        ("tensors.0.names.0", "other", r"features\[0\]\.name, side and part must be 'other'"),
        ("tensors.0.names.0", "city", "tensors names a feature twice"),
        ("tensors.0.side", "middle", r'tensors\[0\]\.side must be "input" or "output"'),
        ("tensors.0.width", 0, r"tensors\[0\]\.width must be an integer of at least 1"),
        ("tensors.0.width", 2, r"tensors\[0\]\.names must be 2 names"),
        ("tensors.2.class_name", "", r"tensors\[2\]\.class_name must name the class"),
        ("tensors.2.labels", ["a"], r"tensors\[2\]\.labels must be 3 names"),
        ("features.0", DROP, "features has 7 entries; the tensors have 8"),
        ("features.0.kind", "round", r"features\[0\]\.kind must be"),
        ("features.0.edges.1", -1e9, r"features\[0\]\.edges must be two or more ascending"),
        ("features.0.edges.1", "x", r"features\[0\]\.edges\[1\] must be a finite number"),
        ("features.0.edges", [1.0], r"features\[0\]\.edges must be two or more"),
        ("features.0.counts", [1, 2], r"features\[0\]\.counts must be"),
        ("features.0.counts.2", -4, r"features\[0\]\.counts\[2\] must be an integer of at least 0"),
        ("features.0.doane", [0], r"features\[0\]\.doane must begin at the first edge"),
        ("features.0.tenths", [5, 3], r"features\[0\]\.tenths must be ascending places"),
        ("features.0.tenths", [500], r"features\[0\]\.tenths must be ascending places"),
        ("features.0.std", -1, r"features\[0\]\.std must be at least 0"),
        ("features.0.quantiles", {"0.5": 1}, r"features\[0\]\.quantiles must be at"),
        ("features.0.quantiles.0.5", 1e9, None),
        ("features.3.kind", "numeric", r'features\[3\]\.kind must be "categorical"'),
        ("features.3.categories.0", "", r"features\[3\]\.categories\[0\] must be a text"),
        ("features.3.categories.0", 7, r"features\[3\]\.categories\[0\] must be a text"),
        ("features.3.categories.1", "Bern", r"features\[3\]\.categories has one twice"),
        ("features.3.text", False, r"features\[3\]\."),
        ("sample.columns", 7, "sample"),
        ("sample.rows", 10**9, "sample takes .* bytes; the most is"),
        ("sample.zlib_base64", "!", r"sample\.zlib_base64 cannot be unpacked"),
        ("sample.zlib_base64", "eJwDAAAAAAE=", r"sample\.zlib_base64 must hold"),
        ("subjects.image", {}, r"subjects\.image: there is no wide tensor"),
    ],
)
def test_a_wrong_file_is_refused_and_the_place_is_named(path, value, message, tmp_path: Path):
    document = copy.deepcopy(WRITTEN)
    if path == "features.0.quantiles.0.5":
        document["features"][0]["quantiles"]["0.5"] = 1e9
        message = r"features\[0\]\.quantiles must ascend"
    elif path == "features.3.categories.1":
        names = document["features"][3]["categories"]
        names[:2] = ["Bern", "Bern"]
    else:
        change(path, value)(document)
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=message) as caught:
        read_profile(file)
    assert str(file) in str(caught.value)


WRITTEN = document_of(built())


@pytest.mark.parametrize("text", ["", "[1", "[]", "3", '"a"', "[" * 100_000])
def test_what_is_no_json_object_is_refused(text, tmp_path: Path):
    file = tmp_path / "profile.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"profile\.json"):
        read_profile(file)


def test_what_cannot_be_profiled_is_refused():
    with pytest.raises(ConfigError, match="no rows"):
        ProfileBuilder().profile(DIGEST, SOURCE)
    builder = ProfileBuilder()
    builder.add(people(300, 1))
    small = ProfileBuilder()
    small.add(people(3, 1))
    small.add(block({"y": np.zeros(3)}))
    with pytest.raises(UnlikeBlock, match="together"):
        small.profile(DIGEST, SOURCE)
    with pytest.raises(UnlikeBlock):
        builder.add(block({"y": np.zeros(3)}))
    with pytest.raises(ConfigError, match="of one version: expected 'm' 1, given 'm' 2"):
        builder.add(block({"x": np.zeros(3)}, version="2"))


def test_a_profile_is_shown_as_a_table():
    text = shown(built())
    lines = text.splitlines()
    assert "model 'm' version '1'" in lines[0]
    assert any("train.csv, 300 rows" in line for line in lines)
    (age,) = [line for line in lines if line.strip().startswith("age")]
    assert "numeric" in age
    assert f"mean {built().feature('age').reference.mean:.4g}, std" in age
    assert "█" in age
    (city,) = [line for line in lines if line.strip().startswith("city")]
    assert all(f"'{name}'" in city for name in CITIES)
    (predicted,) = [line for line in lines if line.strip().startswith("p.class")]
    assert "maybe" in predicted


def test_bars_show_whatever_is_there():
    assert bars([0, 1, 800, 400]) == " ▁█▄"
    assert bars([]) == ""
    assert bars([0, 0]) == "  "
    assert len(bars([1] * 1000)) <= 24
