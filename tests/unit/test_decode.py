"""Bytes in, Message or Rejected out: never an exception, never unbounded."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.events import delivery, logged

from contracts.checking import error_details
from contracts.registry import families
from worker.body import _deeper_than, dump, find_unfit, parse, replace_nul
from worker.content_encoding import Undecodable
from worker.decode import Decoder, digest
from worker.message import Message, Properties, Rejected
from worker.store.facts import event_json

DECODER = Decoder(families()["execution-log"])
GOOD = logged(output_full={"a": [1, 2.5, None, "x"]}).to_json()

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4)
    ),
    max_leaves=20,
)


@given(st.binary(max_size=500), st.sampled_from([None, "gzip", "zstd", "identity", "br"]))
def test_any_bytes_are_decoded_or_rejected(body, encoding):
    """Whatever comes, under any content encoding."""
    items = DECODER.decode(delivery(body, properties=Properties(content_encoding=encoding)))
    assert items
    assert all(isinstance(item, Message | Rejected) for item in items)
    assert items[0].delivery.body == body


@given(st.integers(0, len(GOOD)), st.binary(max_size=6), st.integers(0, 10))
def test_a_good_event_with_a_wound_is_decoded_or_rejected(at, wound, cut):
    """Events that are nearly right."""
    [item] = DECODER.decode(delivery(GOOD[:at] + wound + GOOD[at + cut :]))[:1]
    assert isinstance(item, Message | Rejected)
    if isinstance(item, Rejected):
        assert item.errors


@given(json_values)
def test_any_json_is_read_as_the_standard_says(value):
    """Our parser and the standard library's agree, within the limits of the wire."""
    text = json.dumps(value).encode()
    parsed, _ = parse(text)
    if find_unfit(parsed) is None:
        assert parsed == json.loads(text)


@given(json_values)
def test_open_json_reaches_the_message_unaltered(value):
    """Nothing but a NUL character is changed."""
    raw = json.loads(GOOD)
    raw["data"]["output_full"] = value
    body = orjson.dumps(raw)
    [item] = DECODER.decode(delivery(body))
    assert isinstance(item, Message)
    assert item.data["output_full"] == replace_nul(orjson.loads(body)["data"]["output_full"])[0]


@pytest.mark.parametrize(
    "number", ["18446744073709551615", "-9223372036854775808", "9223372036854775807"]
)
def test_integers_of_64_bits_are_exact(number):
    """The largest and smallest that 64 bits hold, signed or not."""
    value, _ = parse(f"[{number}]".encode())
    assert value == [int(number)]


@pytest.mark.parametrize(
    "text", [b"[1e308]", b"[-0.0]", b"[12345678901234567890.5]", b'["\\ud83d\\ude00"]']
)
def test_numbers_and_escapes_at_the_edge_are_fine(text):
    """Large doubles, negative zero, long digits with a fraction, a surrogate pair."""
    value, _ = parse(text)
    assert find_unfit(value) is None
    assert value == json.loads(text)


def test_what_is_out_of_range_is_spelt_again_as_it_was():
    """A dead letter of a batch holds the number that the publisher wrote."""
    value, exact = parse(b'{"a": [1e999, 123456789012345678901234, "\\ud800", true]}')
    assert exact
    assert dump(value) == b'{"a":[1e999,123456789012345678901234,"\\ud800",true]}'


def test_depth_is_counted_without_the_array_around_a_batch():
    """An event may be sent alone or in a batch alike."""
    deepest = b"[" * 64 + b"]" * 64
    parse(deepest)
    parse(b"[" + b'{"a":' + b"[" * 63 + b"]" * 63 + b"}]")
    with pytest.raises(Undecodable):
        parse(b'{"a":' + deepest + b"}")


_JSON = st.recursive(
    st.none() | st.sampled_from(["[", "}", "[{", '"']),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab", max_size=2), inner),
)


@given(_JSON, st.integers(1, 8))
def test_nesting_is_told_from_as_few_levels_as_it_takes(value, limit):
    """Looking only as far as there are brackets left says the same as counting every level."""

    def depth(item):
        inside = item.values() if isinstance(item, dict) else item
        return 1 + max(map(depth, inside), default=0) if isinstance(item, dict | list) else 0

    text = orjson.dumps(value)
    opening = text.count(b"[") + text.count(b"{")
    assert _deeper_than(value, limit, opening) == (depth(value) > limit)


def test_brackets_and_commas_in_strings_are_no_structure():
    """A text of a million commas and brackets is one value."""
    value, _ = parse(b'["' + b"[{,:" * 300_000 + b'"]')
    assert len(value) == 1


def test_the_digest_is_over_type_tenant_and_data_with_keys_in_order():
    """A fixed value: a change of it would make every stored message a conflict."""
    data = {"b": [1, 2.5, 1e16, "\u00e9"], "a": {"y": None, "x": True}}
    same = {"a": {"x": True, "y": None}, "b": [1, 2.5, 1e16, "\u00e9"]}
    assert digest("t", "default", data) == digest("t", "default", same)
    assert digest("t", "default", data).hex() == "7db59b308dce891c6366a63fe9446229"
    assert digest("t", "other", data) != digest("t", "default", data)
    assert digest("u", "default", data) != digest("t", "default", data)


@given(st.dictionaries(st.text(), json_values, max_size=6), st.booleans())
def test_json_of_a_large_fact_is_written_at_once_and_says_the_same(output, batched):
    """Nothing that its values take is kept until the batch is written; digest, data and a part of a batch are unaltered."""
    event = logged(action="x" * 3_000, output_full=output).to_json()
    body = b"[" + event + b"," + event + b"]" if batched else event
    as_text, as_values = (
        Decoder(families()["execution-log"], facts=facts).decode(delivery(body))[0]
        for facts in ({"execution.logged"}, ())
    )
    assert isinstance(as_text.data["output_full"], orjson.Fragment)
    assert as_text.fields.output_full is as_text.data["output_full"]
    assert as_text.digest == as_values.digest
    assert orjson.loads(orjson.dumps(as_text.data)) == as_values.data
    assert orjson.loads(event_json(as_text)) == orjson.loads(event_json(as_values))


def test_errors_are_kept_up_to_a_hundred_and_their_number_is_told():
    """A message with a thousand mistakes does not make a letter of a megabyte."""
    from pydantic import BaseModel, ValidationError

    class Many(BaseModel):
        numbers: list[int]

    with pytest.raises(ValidationError) as caught:
        Many(numbers=["x"] * 1000)
    details = error_details(caught.value)
    assert len(details) <= 101
    assert "1000 errors in all" in details[-1].msg
    assert sum(len(detail.model_dump_json()) for detail in details) < 17_000


def test_values_are_counted_as_the_standard_counts_them(monkeypatch):
    """An empty array is one value; at the limit a body passes, and one value more is too many."""
    monkeypatch.setattr("worker.body.MAX_JSON_VALUES", 500)
    padding = b" " * 500
    parse(b"[" + b"[]," * 498 + b"[]]" + padding)
    with pytest.raises(Undecodable):
        parse(b"[" + b"[]," * 499 + b"[]]" + padding)
