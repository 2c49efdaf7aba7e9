"""Predictions in files, read back by those for whom they are."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from gateway.errors import ConfigError
from gateway.monitoring_file import read_monitoring_file
from gateway.serving.settings import StreamSettings
from gateway.serving.signature import Signature, TensorSpec
from gateway.stream.block import Block
from gateway.stream.columns import columns_of
from gateway.stream.sinks.json_lines import JsonLines
from gateway.stream.sinks.parquet import Parquet
from gateway.stream.sinks.sinks import Sinks
from gateway.types import BF16, BYTES, FP16, FP32, INT64
from tests.repository import echo, rows, rows_of
from tests.stream.sinks.blocks import block
from tests.stream.sinks.served import accounted, monitoring, request, serve

PARQUET = '[sinks.archive]\ntype = "parquet"\ndirectory = "out"\n'
LINES = '[sinks.lines]\ntype = "json_lines"\ndirectory = "out"\n'
FEATURES = '[inputs.x]\nfeatures = ["age", "height", "weight", "income"]\n'


def some_rows(count: int, start: int = 0) -> np.ndarray:
    return (start + np.arange(4 * count, dtype=np.float32)).reshape(count, 4)


def some_requests(count: int) -> list:
    return [request("rows", {"x": some_rows(1 + n % 3, n)}, f"r{n}") for n in range(count)]


def lines_in(directory: Path) -> list[dict]:
    found = []
    for path in sorted(directory.iterdir()):
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt") as file:
            found += [json.loads(line) for line in file]
    return found


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_json_lines_hold_each_row_once(tmp_path, compression) -> None:
    status = serve(
        tmp_path, LINES + f'compression = "{compression}"\n', some_requests(30), {"rows": rows}
    )
    found = lines_in(tmp_path / "out")
    assert accounted(status["lines"])["delivered"] == len(found) == 60
    assert len({(line["id"], line["row"]) for line in found}) == 60
    for line in found:
        given = some_rows(3, int(line["id"][1:]))[line["row"]]
        assert line["inputs"] == {"x": given.tolist()}
        assert line["outputs"] == {"y": rows_of(given[None])[0].tolist()}
        assert (line["model"], line["version"]) == ("rows", "1")
        assert line["latency_ms"] > 0
        assert pandas.Timestamp(line["time"]).tzinfo is not None
    assert status["lines"]["state"] == "up"
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert not any(name.endswith(".part") for name in names), "rolled at the end"


def writer(directory: Path, **options) -> JsonLines:
    defaults = {"roll_bytes": 1 << 20, "roll_s": 3600.0, "fsync": "never", "compress": False}
    return JsonLines("lines", directory, **{**defaults, **options})


def test_files_are_rolled_by_size(tmp_path) -> None:
    sink = writer(tmp_path, roll_bytes=1000)
    for n in range(10):
        sink.deliver(sink.encode([block(1, 1, number=n)]), 1.0)
    sink.close()
    files = list(tmp_path.glob("*.jsonl"))
    assert len(files) > 1
    assert all(1000 <= f.stat().st_size < 2000 for f in sorted(files)[:-1])
    assert len(lines_in(tmp_path)) == 20


def test_files_are_rolled_by_age_while_nothing_comes(tmp_path) -> None:
    now = [1000.0]
    sink = writer(tmp_path, roll_s=60.0, wall_clock=lambda: now[0])
    sink.deliver(sink.encode([block(1)]), 1.0)
    sink.idle()
    assert list(tmp_path.glob("*.jsonl")) == []
    assert len(lines_in(tmp_path)) == 1, "it can be followed while it is written"
    now[0] += 60
    sink.idle()
    assert len(list(tmp_path.glob("*.jsonl"))) == 1


def test_a_write_that_fails_half_way_leaves_no_torn_line(tmp_path, monkeypatch) -> None:
    sink = writer(tmp_path)
    sink.deliver(sink.encode([block(1)]), 1.0)
    write = os.write

    def full(file, data):
        if len(data) > 10:
            return write(file, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    parcels = sink.encode([block(1, number=1)])
    with pytest.raises(OSError, match="No space left"):
        sink.deliver(parcels, 1.0)
    assert not parcels[0].arrived
    monkeypatch.undo()
    sink.deliver(parcels, 1.0)
    sink.close()
    assert [line["id"] for line in lines_in(tmp_path)] == ["r0-0", "r1-0"]


def test_parquet_is_one_table_partitioned_by_model_version_and_day(tmp_path) -> None:
    status = serve(
        tmp_path,
        PARQUET,
        [*some_requests(30), request("other", {"x": some_rows(2)}, "o")],
        {"rows": rows, "other": rows},
    )
    assert sum(a["delivered"] for a in status["archive"]["accounts"]) == 62
    table = ds.dataset(tmp_path / "out", partitioning="hive").to_table()
    frame = table.to_pandas()
    assert frame.groupby("model").size().to_dict() == {"other": 2, "rows": 60}
    assert set(frame["version"].astype(str)) == {"1"}
    mine = frame[frame["model"] == "rows"]
    assert len({(id, row) for id, row in zip(mine["id"], mine["row"], strict=True)}) == 60
    for line in mine.itertuples():
        given = some_rows(3, int(line.id[1:]))[line.row]
        assert line.in_x.tolist() == given.tolist()
        assert line.out_y.tolist() == rows_of(given[None])[0].tolist()
        assert line.latency_ms > 0
        assert str(line.time.date()) == str(line.day)
    assert table.schema.field("in_x").type == pa.list_(pa.float32(), 4)
    assert table.schema.field("time").type == pa.timestamp("us", "UTC")
    assert [p for p in (tmp_path / "out").rglob("*") if p.suffix == ".tmp"] == []


def test_features_with_names_are_columns(tmp_path) -> None:
    serve(
        tmp_path,
        PARQUET,
        some_requests(4),
        {"rows": rows},
        settings=FEATURES + '[stream]\ndrop = ["income"]\n',
    )
    frame = pandas.read_parquet(tmp_path / "out")
    assert [c for c in frame.columns if c.startswith("in_")] == ["in_age", "in_height", "in_weight"]
    first = frame[(frame["id"] == "r2") & (frame["row"] == 1)]
    assert first[["in_age", "in_height", "in_weight"]].to_numpy().tolist() == [[6, 7, 8]]


def test_text_is_text(tmp_path) -> None:
    words = np.array([[b"a", "né".encode()], [b"b", b""]], object)
    serve(
        tmp_path,
        PARQUET + LINES,
        [request("words", {"x": words})],
        {"words": lambda: echo("BYTES")},
    )
    frame = pandas.read_parquet(next((tmp_path / "out").rglob("*.parquet")))
    assert [x.tolist() for x in frame["in_x"]] == [["a", "né"], ["b", ""]]
    (file,) = (tmp_path / "out").glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["inputs"]["x"] for line in lines] == [["a", "né"], ["b", ""]]


def odd_block(width: int) -> Block:
    """Of every kind of column: halves, BF16, one element, unknown sizes, a matrix, an image."""
    specs = (
        TensorSpec("half", FP16, (-1, 2), batch_axis=0),
        TensorSpec("brain", BF16, (-1, 1), batch_axis=0),
        TensorSpec("flat", INT64, (-1,), batch_axis=0),
        TensorSpec("open", FP32, (-1, -1, 2), batch_axis=0),
        TensorSpec("name", BYTES, (-1, 1), batch_axis=0),
    )
    columns = columns_of(Signature(specs, (), 8), StreamSettings())
    arrays = {
        "half": np.array([[1, 2.5], [np.nan, 4]], np.float16),
        "brain": np.array([[0x3FC0], [0xC000]], np.uint16),
        "flat": np.array([7, 8]),
        "open": np.arange(4 * width, dtype=np.float32).reshape(2, width, 2),
        "name": np.array([["a"], [b"\xff"]], object),
    }
    return Block(
        "odd", "1", columns, number=0, at=1.7e9, request_rows=np.array([2]),
        latency_ns=np.array([10**6]), ids=None, event_ids=None, inputs=arrays, outputs={},
    )  # fmt: skip


def test_every_kind_of_tensor_has_a_column_that_any_file_agrees_on(tmp_path) -> None:
    sink = Parquet(tmp_path, compression="zstd", fsync=False)
    sink.deliver(sink.encode([odd_block(3), odd_block(2)]), 1.0)
    assert len(list(tmp_path.rglob("*.parquet"))) == 2, "blocks of unlike shapes"
    table = ds.dataset(tmp_path, partitioning="hive").to_table()
    assert table.num_rows == 4
    kinds = {f.name: f.type for f in table.schema if f.name.startswith("in_")}
    assert kinds == {
        "in_half": pa.list_(pa.float32(), 2),
        "in_brain": pa.float32(),
        "in_flat": pa.int64(),
        "in_open": pa.list_(pa.float32()),
        "in_open_shape": pa.list_(pa.int32()),
        "in_name": pa.string(),
    }
    lines = sorted(table.to_pylist(), key=lambda line: (line["in_open_shape"], line["row"]))
    assert [line["in_open_shape"] for line in lines] == [[2, 2], [2, 2], [3, 2], [3, 2]]
    assert lines[2]["in_open"] == [0, 1, 2, 3, 4, 5]
    assert [line["in_brain"] for line in lines[:2]] == [1.5, -2.0]
    assert lines[0]["in_half"] == [1.0, 2.5]
    assert [line["in_name"] for line in lines[:2]] == ["a", "\\xff"]


def test_days_are_partitions_of_their_own_in_utc(tmp_path) -> None:
    sink = Parquet(tmp_path, compression="none", fsync=True)
    midnight = 1_700_006_400.0
    sink.deliver(sink.encode([block(1, at=midnight - 1), block(2, at=midnight)]), 1.0)
    frame = pandas.read_parquet(tmp_path)
    assert frame.groupby("day", observed=True).size().to_dict() == {
        "2023-11-14": 1,
        "2023-11-15": 2,
    }


def test_a_model_whose_name_is_no_file_name_has_its_partition_nevertheless(tmp_path) -> None:
    sink = Parquet(tmp_path, compression="none", fsync=False)
    sink.deliver(sink.encode([block(1, model="a/../b=c")]), 1.0)
    assert [p.name for p in tmp_path.iterdir()] == ["model=a%2F..%2Fb%3Dc"]
    assert pandas.read_parquet(tmp_path)["model"].tolist() == ["a/../b=c"]


def test_a_file_that_cannot_be_written_leaves_nothing_and_is_tried_again(tmp_path) -> None:
    sink = Parquet(tmp_path / "out", compression="none", fsync=False)
    parcels = sink.encode([block(1)])
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(OSError, match="Not a directory"):
        sink.deliver(parcels, 1.0)
    assert not parcels[0].arrived
    (tmp_path / "out").unlink()
    sink.deliver(parcels, 1.0)
    assert len(pandas.read_parquet(tmp_path / "out")) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[sinks.a]\ntype = "csv"', 'sinks.a.type must be "parquet" or "json_lines"'),
        ('[sinks.a]\ntype = "parquet"', "sinks.a.directory is missing"),
        (PARQUET + 'fsync = "yes"', "sinks.archive.fsync must be true or false, not 'yes'"),
        (PARQUET + "batch = { row = 1 }", "sinks.archive.batch.unknown key 'row'; did you mean"),
        (
            PARQUET + 'buffer_bytes = "1MiB"\nbatch = { bytes = "2MiB" }',
            "sinks.archive.batch.bytes is 2097152, more than buffer_bytes, which is 1048576",
        ),
        (PARQUET + 'buffer_bytes = "1 potato"', 'sinks.archive.buffer_bytes: expected a size such'),
        (LINES + "timeout_s = 0", "sinks.lines.timeout_s must be a number of seconds above 0"),
        (LINES.replace("out", "monitoring.toml/x"), "directory: cannot write into"),
        (LINES + 'models = "all"', "sinks.lines.models must be a list, not 'all'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_sink_is_told_before_anything_starts(tmp_path, text, message) -> None:
    path = monitoring(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        Sinks(read_monitoring_file(str(path)).sinks)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_what_is_not_said_of_a_batch_is_the_types_own_and_fits_into_the_buffer(tmp_path) -> None:
    text = LINES + 'buffer_bytes = "1MiB"\nbatch = { rows = 7 }\n'
    ((_, (settings, _)),) = Sinks(read_monitoring_file(str(monitoring(tmp_path, text))).sinks)._made
    assert (settings.batch.rows, settings.batch.bytes) == (7, 1 << 20)
    assert settings.batch.linger_s == 0.5
