"""Labels as they are sent: what is read of each kind of file, and what is refused."""

import io
from datetime import UTC, datetime

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from gateway.errors import InvalidRequest, MalformedRequest
from gateway.monitor.label_files import CSV, JSON, JSON_LINES, PARQUET, PIECE, read_labels
from gateway.monitor.labels import Label

NOON = datetime(2025, 1, 31, 12, tzinfo=UTC).timestamp()


def read(kind, body):
    body = body.encode() if isinstance(body, str) else body
    return [label for piece in read_labels(kind, body) for label in piece]


@pytest.mark.parametrize(
    "body",
    [
        '{"id": "a", "value": 1}',
        '[{"id": "a", "value": 1.0}]',
        '{"labels": [{"id": "a", "value": true, "row": null}]}',
    ],
)
def test_json_is_a_label_or_a_list_of_them(body):
    assert read(JSON, body) == [Label("a", 1.0)]


def test_values_are_numbers_text_or_lists_of_numbers():
    lines = '{"id":"a","value":"x"}\n\n{"id":"b","value":[1,2.5],"row":3,"time":5}\n'
    assert read(JSON_LINES, lines) == [Label("a", "x"), Label("b", (1.0, 2.5), 3, 5.0)]


def test_of_csv_cells_are_numbers_where_they_may_be():
    text = '\ufeffvalue,id,time,row\n1,007,,\ncat,b,2025-01-31T12:00:00Z,2\n0.5,"c,d",12,0\n'
    assert read(CSV, text) == [
        Label("007", 1.0),
        Label("b", "cat", 2, NOON),
        Label("c,d", 0.5, 0, 12.0),
    ]


def written(**columns):
    buffer = io.BytesIO()
    parquet.write_table(arrow.table(columns), buffer)
    return buffer.getvalue()


def test_parquet_has_a_column_for_each_key():
    noon = datetime(2025, 1, 31, 12, tzinfo=UTC)
    assert read(PARQUET, written(id=["a", "b"], value=[1, 0], time=[noon, None])) == [
        Label("a", 1.0, None, NOON),
        Label("b", 0.0),
    ]
    assert read(PARQUET, written(id=["a"], value=[[0.5, 1.0]])) == [Label("a", (0.5, 1.0))]


def test_many_labels_come_in_pieces():
    body = "id,value\n" + "".join(f"r{n},{n}\n" for n in range(2 * PIECE + 1))
    assert [len(piece) for piece in read_labels(CSV, body.encode())] == [PIECE, PIECE, 1]


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (JSON, "{", "malformed JSON"),
        (JSON, "3", "expected a label, or a list"),
        (JSON, "[3]", "label 1: expected an object"),
        (JSON, '{"labels": [], "x": 1}', "unknown key 'x' beside 'labels'"),
        (JSON, '[{"id": "a", "value": 1}, {"id": 3, "value": 1}]', "label 2: id must be text"),
        (JSON, '{"id": "", "value": 1}', "label 1: id must be text of 1 to 1024"),
        (JSON, '{"id": "a"}', "label 1: value is missing"),
        (JSON, '{"id": "a", "value": {}}', "label 1: value must be a finite number"),
        (JSON, '{"id": "a", "value": ["x"]}', "label 1: value must be a finite number"),
        (JSON, '{"id": "a", "value": []}', "label 1: value must be a finite number"),
        (JSON, '{"id": "a", "value": 1, "rows": 2}', "label 1: unknown key 'rows'"),
        (JSON, '{"id": "a", "value": 1, "row": -1}', "label 1: row must be a whole number"),
        (JSON, '{"id": "a", "value": 1, "row": true}', "label 1: row must be a whole number"),
        (JSON, '{"id": "a", "value": 1, "time": "noon"}', "label 1: time must be Unix seconds"),
        (JSON_LINES, '{"id":"a","value":1}\nx', "line 2 is not JSON"),
        (CSV, "", "expected the columns id and value"),
        (CSV, "id,truth\na,1\n", "expected the columns id and value"),
        (CSV, "id,value,id\na,1,b\n", "once each"),
        (CSV, "id,value\na\n", "line 2 has 1 cells; the first line names 2 columns"),
        (CSV, "id,value\na,nan\n", "label 1: value must be a finite number"),
        (CSV, b"id,value\n\xff,1\n", "malformed CSV"),
        (CSV, "id,value,row\na,1,x\n", "label 1: row must be a whole number"),
        (PARQUET, b"PAR1", "malformed Parquet"),
    ],
)
def test_what_is_wrong_is_named(kind, body, message):
    with pytest.raises((InvalidRequest, MalformedRequest), match=message):
        read(kind, body)
