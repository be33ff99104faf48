"""The field types that contracts share: keys, times, text that a column can hold, money.

Owns the meaning of a JSON value on the wire. Promises that a value which passes fits its column unchanged:
nothing is rounded, cut or guessed from another JSON type (but the digits of a time behind its microseconds).
"""

import re
from datetime import UTC, datetime
from decimal import Decimal
from ipaddress import ip_address
from typing import Annotated, Any, NotRequired
from uuid import UUID

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetPydanticSchema,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from contracts.limits import INT32_MAX, INT64_MAX

# RFC 3339, section 5.6: date, "T", time, and an offset that is never left out.
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ](?:[01]\d|2[0-3]):\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)


def _utc(value: Any) -> datetime:
    """An RFC 3339 string, or an aware datetime, as a datetime in UTC (microseconds; finer digits are cut)."""
    if isinstance(value, str):
        time = _parse(value)
    elif isinstance(value, datetime):
        time = value
    else:
        raise ValueError("a time must be a string in RFC 3339 form, like 2026-11-21T20:10:04.763Z")  # noqa: TRY004 (pydantic collects ValueError, not TypeError)
    if time.tzinfo is UTC:
        return time
    if time.tzinfo is None:
        raise ValueError("a time must have an offset, like Z or +02:00")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time must lie in the years 1 to 9999 in UTC") from None


def _parse(text: str) -> datetime:
    """RFC 3339, which is less than `datetime.fromisoformat` accepts (and, in lower-case letters, more)."""
    if not _RFC3339.fullmatch(text):
        raise ValueError("a time must be RFC 3339 with an offset, like 2026-11-21T20:10:04.763Z")
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError:
        raise ValueError("a time must be a date and time that the calendar has") from None


def decimal_number(value: Any) -> Any:
    """Numbers come as JSON numbers; the shortest decimal form of a double is its value on the wire."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise ValueError("an amount must be a number")  # noqa: TRY004 (as above)
    return value if isinstance(value, Decimal) else Decimal(str(value))


def _address(value: str) -> str:
    """An address of version 4 or 6; a zone (`%eth0`) means nothing outside its host, and no column holds it."""
    try:
        if "%" not in value:
            ip_address(value)
            return value
    except ValueError:
        pass
    raise ValueError("an IP address must be one of version 4 or 6, without a zone or a mask")


def or_default(default: Any) -> BeforeValidator:
    """For a member that has a default: an explicit JSON null counts as not given."""

    def null_means_default(value: Any) -> Any:
        return default if value is None else value

    return BeforeValidator(null_means_default)


Key = Annotated[UUID, Field(strict=False)]
"""A UUID as a string; version 7 recommended (locality and time order), any version accepted."""

Timestamp = Annotated[datetime, BeforeValidator(_utc)]
"""RFC 3339 with an offset; kept in UTC with microseconds."""

Tenant = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""The tenant that a message belongs to."""

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=50)]
"""A lower-case name of an open set, such as an agent type."""

Text = Annotated[str, Field(min_length=1)]
"""Text that must say something."""

Name = Annotated[str, Field(min_length=1, max_length=255)]
"""A name of at most 255 characters."""

ShortName = Annotated[str, Field(min_length=1, max_length=100)]
"""A name of at most 100 characters."""

Money = Annotated[
    Decimal,
    BeforeValidator(decimal_number),
    PlainSerializer(float, return_type=float, when_used="json"),  # 14 digits survive a double
    Field(ge=0, max_digits=14, decimal_places=6),
    WithJsonSchema({"type": "number", "minimum": 0, "exclusiveMaximum": 100_000_000}),
]
"""NUMERIC(14,6), not negative; more places than the column holds are refused, not rounded."""

Cost = Annotated[
    Decimal,
    BeforeValidator(decimal_number),
    PlainSerializer(float, return_type=float, when_used="json"),
    Field(ge=0, max_digits=10, decimal_places=6),
    WithJsonSchema({"type": "number", "minimum": 0, "exclusiveMaximum": 10_000}),
]
"""NUMERIC(10,6), not negative: the price of one call; more places than the column holds are refused."""


def _shortest(value: Decimal) -> int | float:
    """A JSON number that reads as this value again: a whole one as an integer, where the wire has it."""
    whole = abs(value) <= INT64_MAX and value == value.to_integral_value()
    return int(value) if whole else float(value)


DecimalNumber = Annotated[
    Decimal,
    BeforeValidator(decimal_number),
    PlainSerializer(_shortest, return_type=int | float, when_used="json"),
    Field(allow_inf_nan=False),
    WithJsonSchema({"type": "number"}),
]
"""NUMERIC: any JSON number, kept as its shortest decimal form."""

IpAddress = Annotated[str, Field(max_length=45), AfterValidator(_address)]
"""An IP address of version 4 or 6 that an INET column holds."""

Share = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole, from 0 to 1."""

Real = Annotated[float, Field(allow_inf_nan=False)]
"""A finite IEEE double."""

Count = Annotated[int, Field(ge=0, le=INT32_MAX)]
"""A whole number from 0 that an INTEGER column holds."""

Positive = Annotated[int, Field(ge=1, le=INT32_MAX)]
"""A whole number from 1 that an INTEGER column holds."""

Milliseconds = Annotated[int, Field(ge=0, le=INT64_MAX)]
"""A duration in milliseconds that a BIGINT column holds."""

Size = Annotated[int, Field(ge=0, le=INT64_MAX)]
"""A number of bytes that a BIGINT column holds."""

Percentage = Annotated[int, Field(ge=0, le=100)]
"""A whole percentage."""

Attempt = Annotated[int, Field(ge=1, le=INT32_MAX)]
"""Which attempt of a task an event tells of, from 1."""


def _object(source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    """An object as it is: the copies that pydantic makes of dicts took 11 of 28 µs of checking a trajectory of 20 steps.

    Errors, JSON Schema and serialisation stay those of `dict[str, Any]`.
    """
    is_dict = core_schema.is_instance_schema(dict)
    return core_schema.json_or_python_schema(
        json_schema=handler(source),
        python_schema=core_schema.custom_error_schema(is_dict, custom_error_type="dict_type"),
    )


JsonObject = Annotated[dict[str, Any], GetPydanticSchema(_object)]
"""An open JSON object; its shape is described in the contract's docstring. Names that are no text become text."""


class ClaimCheck(TypedDict):
    """Where a content lies that is too large for a message. The worker keeps the reference and never fetches it."""

    # pydantic reads it, it is no member
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, ser_json_inf_nan="constants")  # type: ignore[misc]

    uri: Annotated[
        str,
        Field(
            min_length=1,
            max_length=2048,
            pattern=r"^[A-Za-z][A-Za-z0-9+.-]*:[^\s\x00-\x1f]+$",
            description="where it lies, such as s3://bucket/key; without a password",
        ),
    ]
    sha256: Annotated[
        str,
        Field(pattern=r"^[0-9a-f]{64}$", description="the content's SHA-256, in lower-case hex"),
    ]
    size: Annotated[Size, Field(description="the content's size in bytes")]
    content_type: NotRequired[
        Annotated[
            Annotated[str, Field(min_length=1, max_length=255)] | None,
            Field(description="the content's media type"),
        ]
    ]
