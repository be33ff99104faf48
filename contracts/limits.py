"""Every number of the wire: what a message may be at most.

Publishers and the worker share these, so that an agent can refuse its own message before it is sent.
The worker's settings may lower or raise MAX_BODY_BYTES; the others are fixed by the wire.
"""

MAX_BODY_BYTES = 8 * 1024 * 1024
"""Largest body in bytes, after decompression."""

MAX_NESTING = 64
"""Deepest nesting of arrays and objects in one event (the array around a batch is not counted)."""

MAX_JSON_VALUES = 500_000
"""Most JSON values in one body."""

MAX_BATCH_EVENTS = 10_000
"""Most events in one batch body."""

MAX_ERRORS = 100
"""Most validation errors kept for one rejected message."""

MAX_BATCH_ERRORS = 10_000
"""Most validation errors kept for all events of one batch body, beyond the first three of each."""

MAX_ERRORS_BYTES = 16 * 1024
"""Most bytes of validation errors kept for one rejected message."""

MAX_CONFIRMATION_BYTES = 1024 * 1024
"""Largest confirmation event in bytes; a larger one is split."""

INT64_MAX = 2**63 - 1
"""Largest value of a BIGINT column."""

INT32_MAX = 2**31 - 1
"""Largest value of an INTEGER column."""

INT64_MIN = -(2**63)
"""Smallest integer of the wire."""

UINT64_MAX = 2**64 - 1
"""Largest integer of the wire (in open JSON; no column of its own holds more than a BIGINT)."""
