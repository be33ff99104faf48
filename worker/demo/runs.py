"""Recorded runs as they stand in a file: reading them, and the order and times that they are given. Pure.

The file is a JSON array of runs: {"task_id", "trial", "reward", "info": {"task": {"instruction", "user_id"?, …},
"user_cost"?, "reward_info"?}, "traj": [messages with "role", "content", "tool_calls"?, "name"?]}. It holds no times:
from a fixed start, a task begins an hour after the one before, a trial ten minutes, a message five seconds.
"""

import json
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from contracts.checking import error_details
from worker.errors import Misconfigured

START = datetime(2024, 5, 15, 20, 0, tzinfo=UTC)
"""When the first recorded task begins."""

_SURROGATE = re.compile("[\ud800-\udfff]")

Message = dict[str, Any]


class Instructed(BaseModel):
    """What the agent was to do. What else the file says of it is kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    instruction: Annotated[str, Field(min_length=1)]
    user_id: Annotated[str, Field(min_length=1, max_length=255)] | None = None


class Info(BaseModel):
    """What is known of a run beside its messages."""

    model_config = ConfigDict(frozen=True)

    task: Instructed
    user_cost: Annotated[float, Field(ge=0, le=1_000_000)] | None = None
    reward_info: dict[str, Any] | None = None


class Run(BaseModel):
    """One recorded run: a trial of a task."""

    model_config = ConfigDict(frozen=True)

    task_id: Annotated[int, Field(ge=0, le=100_000)]
    trial: Annotated[int, Field(ge=0, le=10_000)]
    reward: Annotated[float, Field(allow_inf_nan=False)]
    info: Info
    traj: tuple[Message, ...]

    @property
    def place(self) -> tuple[int, int]:
        """Which run it is: task and trial."""
        return self.task_id, self.trial

    @property
    def begin(self) -> datetime:
        """When the run begins."""
        return START + timedelta(hours=self.task_id, minutes=10 * self.trial)

    @property
    def cost(self) -> float:
        """What it cost in US dollars, as far as that is known."""
        return self.info.user_cost or 0.0

    @property
    def end(self) -> datetime:
        """When it is over."""
        return self.time_of(len(self.traj))

    def time_of(self, index: int) -> datetime:
        """When its message of this index is said."""
        return self.begin + timedelta(seconds=5 * (index + 1))


def read(path: Path) -> list[Run]:
    """The runs of a file, by task and trial. Raises Misconfigured where it is not such a file."""
    try:
        content = _without_surrogates(json.loads(path.read_text(encoding="utf-8")))
        runs = TypeAdapter(list[Run]).validate_python(content)
    except ValidationError as error:
        shown = "; ".join(str(detail) for detail in error_details(error)[:3])
        raise Misconfigured(f"{path} does not hold recorded runs: {shown}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Misconfigured(f"{path} cannot be read as recorded runs: {error}") from None
    runs.sort(key=lambda run: run.place)
    for one, other in pairwise(runs):
        if one.place == other.place:
            raise Misconfigured(f"{path} holds trial {one.trial} of task {one.task_id} twice")
    return runs


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(member) for member in value]
    if isinstance(value, dict):
        return {_SURROGATE.sub("\ufffd", k): _without_surrogates(v) for k, v in value.items()}
    return value
