"""Property bytes of any kind become Properties or a fault, never an exception."""

import json
import struct
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, decode, encode
from support.hostile import HOSTILE

from worker.broker.field_table import FieldError, read_table
from worker.broker.properties import parse

texts = st.none() | st.text(max_size=40).filter(lambda text: len(text.encode()) < 256)


def header(flags: int, rest: bytes) -> bytes:
    return struct.pack(">HHQH", 60, 0, 0, flags) + rest


@pytest.mark.parametrize("case", HOSTILE)
def test_what_client_libraries_die_on_is_a_fault_that_names_the_property(case):
    """Every hostile property of the torture list."""
    flags, rest = HOSTILE[case]
    _, fault = parse(header(flags, rest))
    assert fault is not None
    assert fault.split(":")[0] in ("timestamp", "headers", "content_type", "type")


@given(st.integers(0, 0xFFFF), st.binary(max_size=200))
def test_any_bytes_give_properties_or_a_fault(flags, rest):
    """Foreign bytes are decoded within these walls."""
    properties, fault = parse(header(flags, rest))
    assert properties is not None
    assert fault is None or isinstance(fault, str)


@given(st.binary(max_size=20))
def test_a_header_that_is_cut_short_is_a_fault(raw):
    """Even the fixed part may be missing."""
    assert parse(raw[:13])[1] is not None


@given(
    texts,
    texts,
    texts,
    st.none() | st.integers(1, 9),
    st.none() | st.dictionaries(st.sampled_from("abc"), st.integers(0, 10**9) | st.booleans()),
)
def test_what_a_client_sets_is_what_is_read(content_type, message_id, reply_to, priority, headers):
    """Against the encoder of the client library."""
    marshalled = commands.Basic.Properties(
        content_type=content_type,
        message_id=message_id,
        reply_to=reply_to,
        priority=priority,
        headers=headers,
    ).marshal()
    properties, fault = parse(struct.pack(">HHQ", 60, 0, 0) + marshalled)
    assert fault is None
    assert properties.content_type == (content_type or properties.content_type)
    assert (properties.message_id or None) == (message_id or None)
    assert (properties.reply_to or None) == (reply_to or None)
    assert (properties.headers or None) == (headers or None)


VALUES = {
    "text": "ä",
    "bytes": bytearray(b"text"),
    "binary": bytearray(b"\xff"),
    "time": datetime(2026, 1, 1, tzinfo=UTC),
    "decimal": Decimal("-1.5"),
    "true": True,
    "none": None,
    "int": 2**40,
    "nan": float("nan"),
    "table": {"list": ["x", 1, None, {"deep": [[]]}]},
}


def test_field_values_become_plain_json():
    """Bytes, times, decimals and numbers that JSON has not."""
    table, end = read_table(encode.field_table(VALUES))
    assert end == len(encode.field_table(VALUES))
    assert table == {
        "text": "ä",
        "bytes": "text",
        "binary": "ff",
        "time": "2026-01-01T00:00:00+00:00",
        "decimal": "-1.5",
        "true": True,
        "none": None,
        "int": 2**40,
        "nan": "nan",
        "table": {"list": ["x", 1, None, {"deep": [[]]}]},
    }


fields = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | st.text(max_size=5)
    | st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(  # noqa: DTZ001 (aware in a moment)
        lambda time: time.replace(microsecond=0, tzinfo=UTC)
    ),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=5), fields, max_size=5))
def test_any_table_is_read_as_the_client_library_reads_it(table):
    """Against its decoder, which is right wherever it ends in time."""
    raw = encode.field_table(table)
    size, expected = decode.field_table(raw)
    assert read_table(raw) == (json.loads(json.dumps(expected, default=datetime.isoformat)), size)


def test_a_table_that_is_cut_short_is_no_table():
    """Wherever the cut falls; where the outer size was made to fit it, the inner ones are compared."""
    whole = encode.field_table(VALUES)
    for cut in range(1, len(whole)):
        with pytest.raises(FieldError):
            read_table(whole[:-cut])
    inside = whole[: whole.index(b"deep") - 1]
    with pytest.raises(FieldError):
        read_table(struct.pack(">I", len(inside) - 4) + inside[4:])


def test_messages_with_the_same_few_properties_share_them():
    """What most messages of a publisher carry is decoded once; a message id, a fault or much text is nobody else's."""
    alike = header(0x9000, b"\x10application/json\x02")
    assert parse(alike)[0] is parse(bytes(alike))[0]
    assert parse(alike)[0].delivery_mode == 2
    assert parse(header(0x8000, b"\x10application/json"))[0].delivery_mode is None
    with_id = header(0x0080, b"\x01x")
    assert parse(with_id)[0] is not parse(with_id)[0]
    long = header(0x8000, b"\x80" + b"x" * 128)
    assert parse(long)[0] is not parse(long)[0]
    broken = header(0x8000, b"\x01\xff")
    assert parse(broken)[1] is not None
    assert parse(broken)[1] == parse(broken)[1]
