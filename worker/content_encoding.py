"""From the bytes of a body to its text: gzip and zstd, never more than the limit however small they came.

Promises one error, Undecodable, for whatever the bytes are, and work that grows with the bytes and not with their
square: hundreds of thousands of empty gzip members or zstd frames are refused before they cost anything.
Layouts: RFC 1952 (gzip), RFC 8878 (zstd).
"""

import zlib

import zstandard

from contracts.limits import MAX_BATCH_EVENTS

_MOST_MEMBERS = (
    MAX_BATCH_EVENTS  # one for each event of the largest batch is more than anybody writes
)
_FIRST_PIECE = 1024
_LARGEST_PIECE = 64 * 1024
_ZSTD_MAGIC = 0xFD2FB528
_SKIPPABLE_MAGIC = 0x184D2A50  # and the fifteen after it
_RUN = 1  # the type of a block that repeats one byte


class Undecodable(Exception):
    """These bytes are no JSON that the wire allows; the text says why."""


def unpack(body: bytes, encoding: str | None, max_bytes: int) -> bytes:
    """The body without its content encoding, at most `max_bytes` of it. Raises Undecodable."""
    match (encoding or "identity").lower():
        case "identity":
            text = body
        case "gzip":
            text = _gunzip(_checked_size(body, max_bytes), max_bytes)
        case "zstd":
            text = _unzstd(_checked_size(body, max_bytes), max_bytes)
        case other:
            raise Undecodable(f"content_encoding {other[:40]!r} is not gzip or zstd")
    if len(text) > max_bytes:
        raise Undecodable(f"the body is larger than {max_bytes} bytes")
    return text


def _checked_size(body: bytes, max_bytes: int) -> bytes:
    """Refuse what no honest compression makes of a body within the limit: padding that would only cost time."""
    if len(body) > max_bytes + max_bytes // 64 + 1024:
        raise Undecodable(f"the body is larger than {max_bytes} bytes even compressed")
    return body


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = at = members = 0
    while at < len(body):
        members += 1
        if members > _MOST_MEMBERS:
            raise Undecodable(f"the body holds more than {_MOST_MEMBERS} gzip members")
        member = zlib.decompressobj(wbits=31)
        room = _FIRST_PIECE  # pieces grow with the member, so that small members copy little
        while not member.eof:
            if at >= len(body):
                raise Undecodable("the body is not gzip: cut short")
            piece = body[at : at + room]
            at += len(piece)
            room = min(2 * room, _LARGEST_PIECE)
            try:
                part = member.decompress(piece, max_bytes + 1 - size)
            except zlib.error as error:
                raise Undecodable(f"the body is not gzip: {error}") from None
            size += len(part)
            if part:
                parts.append(part)
            if size > max_bytes:
                raise Undecodable(f"the body is larger than {max_bytes} bytes after decompression")
        at -= len(member.unused_data)
    return b"".join(parts)


def _unzstd(body: bytes, max_bytes: int) -> bytes:
    _check_zstd_frames(body)
    # A window larger than the limit is refused before memory is taken for it.
    decompressor = zstandard.ZstdDecompressor(max_window_size=max(1024, max_bytes))
    try:
        with decompressor.stream_reader(body, read_across_frames=True) as reader:
            text = reader.read(max_bytes + 1)
    except zstandard.ZstdError as error:
        raise Undecodable(f"the body is not zstd: {error}") from None
    if len(text) > max_bytes:
        raise Undecodable(f"the body is larger than {max_bytes} bytes after decompression")
    return text


def _check_zstd_frames(body: bytes) -> None:
    """Walk over the frames without decompressing: a reader takes a frame that is cut short for its end."""
    at = frames = 0
    while at < len(body):
        frames += 1
        if frames > _MOST_MEMBERS:
            raise Undecodable(f"the body holds more than {_MOST_MEMBERS} zstd frames")
        magic = int.from_bytes(body[at : at + 4], "little")
        if magic & ~0xF == _SKIPPABLE_MAGIC:
            at += 8 + int.from_bytes(body[at + 4 : at + 8], "little")
        elif magic == _ZSTD_MAGIC:
            at = _end_of_frame(body, at + 4)
        else:
            raise Undecodable("the body is not zstd: no frame begins where one should")
    if at > len(body):
        raise Undecodable("the body is not zstd: cut short")


def _end_of_frame(body: bytes, at: int) -> int:
    """Where the frame ends whose header begins here; past the end of a body that is cut short."""
    descriptor = body[at] if at < len(body) else 0
    single_segment = descriptor >> 5 & 1
    content_size = (single_segment, 2, 4, 8)[descriptor >> 6]
    at += 1 + (not single_segment) + (0, 1, 2, 4)[descriptor & 3] + content_size
    last = False
    while not last and at + 3 <= len(body):
        block = int.from_bytes(body[at : at + 3], "little")
        last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
        at += 3 + (1 if kind == _RUN else size)
    if not last:
        return len(body) + 1
    return at + 4 * (descriptor >> 2 & 1)
