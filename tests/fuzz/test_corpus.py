"""Bad input of every kind that is known, through every way in which bytes reach the worker.

tests/corpus holds small inputs with names that say what they are (and what the fuzzer found); the large ones, at and
past each limit, are made here. Bounds are counted, never timed.
"""

import re
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, target
from hypothesis import strategies as st
from support import fuzzing, limits

from contracts.registry import families
from worker import body, content_encoding
from worker.broker import field_table, properties
from worker.content_encoding import Undecodable, unpack
from worker.decode import Decoder
from worker.families import plan
from worker.message import Message, Rejected

CORPUS = Path(__file__).parents[1] / "corpus"
FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())
DECODER = Decoder(families()["execution-log"], facts=plan().facts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_input_of_the_corpus_keeps_the_promises(path):
    """Found once, by whatever means, and never again."""
    fuzzing.TARGETS[path.parent.name](path.read_bytes())


def test_every_target_has_a_corpus_and_its_files_are_small():
    """The fuzzer begins with it; large inputs are made by a function."""
    assert {path.parent.name for path in FILES} == set(fuzzing.TARGETS)
    assert max(path.stat().st_size for path in FILES) < 4096


@pytest.mark.parametrize("case", limits.CASES)
def test_bodies_at_and_past_each_limit(case):
    """What is allowed passes whole, one step further is refused, and a bomb never goes off."""
    raw, encoding, expected = limits.CASES[case]()
    items = DECODER.decode(fuzzing.delivery(raw, encoding))
    outcomes = {item.reason if isinstance(item, Rejected) else "message" for item in items}
    assert outcomes == {expected}, items[0]
    for item in items:
        assert isinstance(item, Message) or item.body == raw


@pytest.mark.parametrize("case", limits.TABLES)
def test_header_tables_that_are_hostile(case):
    """Read, or a fault that names the headers; never more values visited than there are bytes."""
    table, readable = limits.TABLES[case]
    raw = limits.header(table)
    (found, fault), visits = counted(field_table._read_value, lambda: properties.parse(raw))
    assert (fault is None) is readable, fault
    assert readable or fault.startswith("headers: ")
    assert visits <= len(table)
    assert fuzzing.count_values(found.headers) <= len(table) + 1


def counted(function: Callable, work: Callable) -> tuple:
    """What the work gives, and how often it called a function."""
    calls = 0

    def count(frame, event, argument) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code is function.__code__

    sys.setprofile(count)
    try:
        return work(), calls
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize(
    "open_string", [b'"' + b'\\"' * 5000, b'"' + b"\\\\" * 5000 + b"\\", b'"x']
)
def test_a_string_that_is_never_closed_is_looked_at_once(open_string):
    """Were it no match, the search would begin anew at every quote inside it: hours for a megabyte."""
    assert [match.span() for match in body._STRINGS.finditer(b"[" + open_string)] == [
        (1, 1 + len(open_string))
    ]


@given(st.lists(st.sampled_from([b'"', b"\\", b"a", b",", b"[", b"\n"]), max_size=30))
def test_strings_are_found_as_a_reader_finds_them(parts):
    """Character by character: a quote opens, a quote that is not escaped closes, the end closes too."""
    text = b"".join(parts)
    expected, inside, escaped, bare = bytearray(), False, False, b""
    for at in range(len(text)):
        one = text[at : at + 1]
        if not inside:
            expected += one
            inside = one == b'"'
        elif escaped:
            escaped = False
        elif one == b"\\":
            escaped = True
        elif one == b'"':
            expected += one
            inside = False
    bare = bytes(expected) + (b'"' if inside else b"")
    assert body._without_strings(text) == bare


def test_gzip_members_are_not_copied_over_and_over(monkeypatch):
    """Ten thousand members: what is handed to zlib stays in proportion to the body."""
    handed = []
    made = zlib.decompressobj

    class Counting:
        def __init__(self, wbits: int) -> None:
            self._real = made(wbits=wbits)

        def decompress(self, piece: bytes, most: int) -> bytes:
            assert most <= 2**20 + 1
            handed.append(len(piece))
            return self._real.decompress(piece, most)

        eof = property(lambda self: self._real.eof)
        unused_data = property(lambda self: self._real.unused_data)

    monkeypatch.setattr(content_encoding.zlib, "decompressobj", Counting)
    raw = limits.members(10_000)
    assert unpack(raw, "gzip", 2**20) == limits.event() or handed
    assert len(handed) <= 10_000
    assert sum(handed) <= 10_000 * content_encoding._FIRST_PIECE


@given(st.binary(max_size=2000), st.integers(0, 3), st.data())
def test_zstd_frames_end_where_the_library_says(text, level, data):
    """Any options of a frame: the walk over its blocks agrees with the decompressor, and every cut is noticed."""
    compressor = zstandard.ZstdCompressor(
        level=level + 1,
        write_checksum=data.draw(st.booleans()),
        write_content_size=data.draw(st.booleans()),
    )
    frame = compressor.compress(text * data.draw(st.sampled_from([1, 1, 200])))
    assert content_encoding._end_of_frame(frame, 4) == len(frame)
    cut = data.draw(st.integers(1, len(frame) - 1))
    with pytest.raises(Undecodable):
        unpack(frame[:cut], "zstd", 2**20)


@given(st.sampled_from(list(fuzzing.TARGETS)), st.data())
def test_inputs_near_the_corpus_keep_the_promises(name, data):
    """Wounded, cut and joined: what hypothesis finds with the largest answers first."""
    files = [path for path in FILES if path.parent.name == name]
    raw = data.draw(st.sampled_from(files)).read_bytes()
    at = data.draw(st.integers(0, len(raw)))
    wound = data.draw(st.binary(max_size=8))
    gone = data.draw(st.integers(0, 8))
    damaged = raw[:at] + wound + raw[at + gone :]
    fuzzing.TARGETS[name](damaged)
    target(len(set(re.findall(rb"[^\w]", damaged))))


def test_strings_are_emptied_a_stretch_at_a_time():
    """Twenty-five thousand: three stretches and what stands behind the last."""
    text = b"[" + b'"a\\"[",' * 25_000 + b"1]"
    assert body._without_strings(text) == b"[" + b'"",' * 25_000 + b"1]"
    first = body._MANY_STRINGS.match(text)
    assert first[0].count(b"a") == 10_000
