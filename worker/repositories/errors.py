"""What a repository answers where it cannot do what was asked; each text is one sentence that names field and value."""

from collections.abc import Sequence
from typing import Any

from worker.errors import WorkerError


class RepositoryError(WorkerError):
    """A repository was asked for what it cannot give."""


class BadQuery(RepositoryError):
    """A filter, a sort, a limit or a cursor that means nothing here; the text says what would."""


class OutOfScope(RepositoryError):
    """The tenant or session of an event or a row is not the repository's."""


class NotFound(RepositoryError):
    """There is no such row within the scope."""


class AlreadyExists(RepositoryError):
    """The entity was created before, by another event."""


class Stale(RepositoryError):
    """Somebody was faster: the row is no longer in the version that the caller has seen. Read it again, then decide."""

    def __init__(self, what: str, expected: int, found: int) -> None:
        super().__init__(
            f"{what} is in version {found}, not in version {expected} that the update was made for: read it again"
        )
        self.expected = expected
        self.found = found


class Refused(RepositoryError):
    """An event that a message with this content would be rejected for; `errors` are what its dead letter would say."""

    def __init__(self, reason: str, errors: Sequence[dict[str, Any]]) -> None:
        told = "; ".join(
            f"{'.'.join(map(str, error.get('loc') or ['the event']))}: {error.get('msg')}"
            for error in errors[:3]
        )
        super().__init__(f"{reason}: {told}")
        self.reason = reason
        self.errors = list(errors)
