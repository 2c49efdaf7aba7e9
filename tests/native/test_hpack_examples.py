"""HPACK's tables and examples, RFC 7541 Appendix A and C, in both directions."""

import pytest
from hpack.table import HeaderTable

from gateway._native.hpack import Decoder, Encoder
from tests.native.header_blocks import contents, decode, literal

DATE = b"Mon, 21 Oct 2013 20:13:21 GMT"
LATER = b"Mon, 21 Oct 2013 20:13:22 GMT"
COOKIE = b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
SITE = b"https://www.example.com"


def test_appendix_a_the_static_table():
    table = [field for index in range(1, 62) for field in decode(bytes([0x80 | index]))]
    assert tuple(table) == HeaderTable.STATIC_TABLE


def test_c_1_integers():
    decoder = Decoder()
    for block, size in (("2a", 10), ("3f9a0a", 1337)):
        assert decode(block, decoder) == []
        assert decoder.table.max_size == size
    assert decode(literal(b"a", b"b" * 42)) == [(b"a", b"b" * 42)]


@pytest.mark.parametrize(
    ("block", "field", "never_indexed", "table_size"),
    [
        (
            "400a637573746f6d2d6b65790d637573746f6d2d686561646572",
            (b"custom-key", b"custom-header"),
            False,
            55,
        ),
        ("040c2f73616d706c652f70617468", (b":path", b"/sample/path"), False, 0),
        ("100870617373776f726406736563726574", (b"password", b"secret"), True, 0),
        ("82", (b":method", b"GET"), False, 0),
    ],
)
def test_c_2_representations(block, field, never_indexed, table_size):
    decoder = Decoder()
    (decoded,) = decoder.decode(bytes.fromhex(block))
    assert tuple(decoded) == field
    assert decoded.never_indexed is never_indexed
    assert decoder.table.size == table_size
    assert contents(decoder.table) == ([field] if table_size else [])


REQUEST = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")]
AUTHORITY = (b":authority", b"www.example.com")
REQUESTS = [
    ([*REQUEST, AUTHORITY], [AUTHORITY], 57),
    (
        [*REQUEST, AUTHORITY, (b"cache-control", b"no-cache")],
        [(b"cache-control", b"no-cache"), AUTHORITY],
        110,
    ),
    (
        [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":path", b"/index.html"),
            AUTHORITY,
            (b"custom-key", b"custom-value"),
        ],
        [(b"custom-key", b"custom-value"), (b"cache-control", b"no-cache"), AUTHORITY],
        164,
    ),
]
RESPONSES = [
    (
        [
            (b":status", b"302"),
            (b"cache-control", b"private"),
            (b"date", DATE),
            (b"location", SITE),
        ],
        [
            (b"location", SITE),
            (b"date", DATE),
            (b"cache-control", b"private"),
            (b":status", b"302"),
        ],
        222,
    ),
    (
        [
            (b":status", b"307"),
            (b"cache-control", b"private"),
            (b"date", DATE),
            (b"location", SITE),
        ],
        [
            (b":status", b"307"),
            (b"location", SITE),
            (b"date", DATE),
            (b"cache-control", b"private"),
        ],
        222,
    ),
    (
        [
            (b":status", b"200"),
            (b"cache-control", b"private"),
            (b"date", LATER),
            (b"location", SITE),
            (b"content-encoding", b"gzip"),
            (b"set-cookie", COOKIE),
        ],
        [(b"set-cookie", COOKIE), (b"content-encoding", b"gzip"), (b"date", LATER)],
        215,
    ),
]
REQUESTS_IN_HUFFMAN = [
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
]
RESPONSES_IN_HUFFMAN = [
    "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff"
    "6e919d29ad171863c78f0b97c8e9ae82ae43d3",
    "4883640effc1c0bf",
    "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab"
    "77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f"
    "9587316065c003ed4ee5b1063d5007",
]


def assert_examples(blocks, expected, table_size):
    decoder = Decoder(table_size)
    for block, (fields, table, size) in zip(blocks, expected, strict=True):
        assert decode(block, decoder) == fields
        assert contents(decoder.table) == table
        assert decoder.table.size == size


def test_c_3_requests_without_huffman():
    blocks = [
        "828684410f7777772e6578616d706c652e636f6d",
        "828684be58086e6f2d6361636865",
        "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    ]
    assert_examples(blocks, REQUESTS, 4096)


def test_c_4_requests_with_huffman():
    assert_examples(REQUESTS_IN_HUFFMAN, REQUESTS, 4096)


def test_c_5_responses_without_huffman_where_the_table_evicts():
    blocks = [
        "4803333032580770726976617465611d4d6f6e2c203231204f63742032303133"
        "2032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d70"
        "6c652e636f6d",
        "4803333037c1c0bf",
        "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d"
        "54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f5049"
        "5541585157454f49553b206d61782d6167653d333630303b2076657273696f6e"
        "3d31",
    ]
    assert_examples(blocks, RESPONSES, 256)


def test_c_6_responses_with_huffman_where_the_table_evicts():
    assert_examples(RESPONSES_IN_HUFFMAN, RESPONSES, 256)


def test_c_4_requests_are_encoded_as_in_the_example():
    encoder = Encoder()
    for block, (fields, table, size) in zip(REQUESTS_IN_HUFFMAN, REQUESTS, strict=True):
        assert encoder.encode([(*field, "index") for field in fields]).hex() == block
        assert contents(encoder.table) == table
        assert encoder.table.size == size


def test_c_6_responses_are_encoded_as_in_the_example():
    encoder = Encoder()
    encoder.resize(256)
    # The examples presume the table's size, and take Huffman codes where they save nothing.
    blocks = ["3fe101" + RESPONSES_IN_HUFFMAN[0], "4803333037c1c0bf", RESPONSES_IN_HUFFMAN[2]]
    for block, (fields, table, size) in zip(blocks, RESPONSES, strict=True):
        assert encoder.encode([(*field, "index") for field in fields]).hex() == block
        assert contents(encoder.table) == table
        assert encoder.table.size == size
