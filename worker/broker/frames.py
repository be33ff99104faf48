"""Frames that the worker sends: acknowledgements and publishes as bytes, made without the client library's objects.

Frame layout: AMQP 0-9-1 specification, section 4.2.
"""

from struct import Struct

FRAME_HEAD = Struct(">BHI")  # type, channel, payload size
CONTENT_HEAD = Struct(">HHQ")  # class, weight, body size
OVERHEAD = 8  # the head (7 bytes) and the end mark
METHOD, HEADER, BODY = 1, 2, 3
END = 0xCE

_ACK_FRAME = Struct(">BHIHHQBB")
_BASIC, _BASIC_ACK, _BASIC_NACK = 60, 80, 120
_REQUEUE = 2


def ack_frame(channel: int, tag: int, *, multiple: bool) -> bytes:
    """A `basic.ack` frame."""
    return _ACK_FRAME.pack(METHOD, channel, 13, _BASIC, _BASIC_ACK, tag, multiple, END)


def requeue_frame(channel: int, tag: int, *, multiple: bool) -> bytes:
    """A `basic.nack` frame that puts messages back into their queue."""
    bits = _REQUEUE | multiple
    return _ACK_FRAME.pack(METHOD, channel, 13, _BASIC, _BASIC_NACK, tag, bits, END)


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """One frame around a payload."""
    return FRAME_HEAD.pack(kind, channel, len(payload)) + payload + b"\xce"


def publish_frames(
    channel: int, method: bytes, properties: bytes, body: bytes, frame_max: int
) -> list[bytes]:
    """The frames of one publish: method, header, and the body split to what the connection allows."""
    header = CONTENT_HEAD.pack(_BASIC, 0, len(body)) + properties
    room = (frame_max or 131_072) - OVERHEAD
    pieces = [body[at : at + room] for at in range(0, len(body), room)]
    return [
        frame(METHOD, channel, method),
        frame(HEADER, channel, header),
        *(frame(BODY, channel, piece) for piece in pieces),
    ]


def publish_method(exchange: str, routing_key: str, *, mandatory: bool) -> bytes:
    """The payload of a `basic.publish` method frame."""
    names = (_short(exchange), _short(routing_key))
    return b"\x00\x3c\x00\x28\x00\x00" + b"".join(names) + (b"\x01" if mandatory else b"\x00")


def _short(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > 255:  # noqa: PLR2004 (AMQP short strings)
        raise ValueError(f"{text[:40]!r}… is longer than AMQP's 255 bytes")
    return bytes((len(raw),)) + raw
