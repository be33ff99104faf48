"""From the bytes of a body to its text: gzip and zstd, never more than the limit however small they came.

Promises one error, Undecodable, for whatever the bytes are.
"""

import zlib

import zstandard

_CHUNK = 64 * 1024


class Undecodable(Exception):
    """These bytes are no JSON that the wire allows; the text says why."""


def unpack(body: bytes, encoding: str | None, max_bytes: int) -> bytes:
    """The body without its content encoding, at most `max_bytes` of it. Raises Undecodable."""
    match (encoding or "identity").lower():
        case "identity":
            text = body
        case "gzip":
            text = _gunzip(body, max_bytes)
        case "zstd":
            text = _unzstd(body, max_bytes)
        case other:
            raise Undecodable(f"content_encoding {other[:40]!r} is not gzip or zstd")
    if len(text) > max_bytes:
        raise Undecodable(f"the body is larger than {max_bytes} bytes")
    return text


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    rest = body
    while rest:
        member = zlib.decompressobj(wbits=31)
        try:
            part = member.decompress(rest, max_bytes + 1 - size)
        except zlib.error as error:
            raise Undecodable(f"the body is not gzip: {error}") from None
        size += len(part)
        parts.append(part)
        if size > max_bytes:
            raise Undecodable(f"the body is larger than {max_bytes} bytes after decompression")
        if not member.eof:
            raise Undecodable("the body is not gzip: cut short")
        rest = member.unused_data
    return b"".join(parts)


def _unzstd(body: bytes, max_bytes: int) -> bytes:
    # A window larger than the limit is refused before memory is taken for it.
    decompressor = zstandard.ZstdDecompressor(max_window_size=max(1024, max_bytes))
    try:
        with decompressor.stream_reader(body, read_across_frames=True) as reader:
            text = reader.read(max_bytes + 1)
            if len(text) > max_bytes:
                raise Undecodable(f"the body is larger than {max_bytes} bytes after decompression")
            _check_zstd_end(body)
    except zstandard.ZstdError as error:
        raise Undecodable(f"the body is not zstd: {error}") from None
    return text


def _check_zstd_end(body: bytes) -> None:
    """A stream reader takes a frame that is cut short for its end; a decompression object knows better."""
    rest = body
    while rest:
        member = zstandard.ZstdDecompressor().decompressobj()
        for at in range(0, len(rest), _CHUNK):
            member.decompress(rest[at : at + _CHUNK])
            if member.eof:
                rest = member.unused_data + rest[at + _CHUNK :]
                break
        else:
            raise Undecodable("the body is not zstd: cut short")
