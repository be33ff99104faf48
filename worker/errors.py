"""The three ways in which work can fail, and nothing else.

Invalid (never): this message cannot be stored. Unavailable (not now): try the batch again later.
Misconfigured (stop): neither; a person has to act, and the text says how. A message's text is one sentence.
"""


class WorkerError(Exception):
    """Something the worker noticed and can name."""


class Invalid(WorkerError):
    """PostgreSQL refused a row, and would refuse it again: the message becomes a dead letter, the rest lands.

    `sqlstate` is PostgreSQL's five-character code, or "" where the driver refused the value itself. `reason` is the
    reason of the rejection, where it was not PostgreSQL that refused.
    """

    def __init__(self, text: str, sqlstate: str = "", *, reason: str | None = None) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate
        self.reason = reason


class Unavailable(WorkerError):
    """A service is away or overloaded: nothing is lost, the batch waits and is tried again.

    `ambiguous` where a COMMIT was under way: its transaction may have been committed. `sqlstate` is PostgreSQL's code,
    where it was PostgreSQL that said so.
    """

    def __init__(self, text: str, *, ambiguous: bool = False, sqlstate: str = "") -> None:
        super().__init__(text)
        self.ambiguous = ambiguous
        self.sqlstate = sqlstate


class Misconfigured(WorkerError):
    """The worker cannot do its work as it is set up, for instance because migrations are missing."""
