"""The options that choose dead letters, the same for every command that works on several."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from worker.dead_letters.search import Filters, moment
from worker.errors import Misconfigured
from worker.store.operational import REASONS

_Words = list[str] | None


def _filters(
    *,
    ids: Annotated[
        _Words, typer.Argument(metavar="[ID]...", help="Letters, or the first digits of their ids.")
    ] = None,
    more_ids: Annotated[_Words, typer.Option("--id", help="As ID.")] = None,
    family: Annotated[
        _Words, typer.Option(help="Family; may be repeated, as all of these.")
    ] = None,
    event_type: Annotated[_Words, typer.Option("--type", help="Event type.")] = None,
    reason: Annotated[_Words, typer.Option(help=f"One of {', '.join(REASONS)}.")] = None,
    source: Annotated[_Words, typer.Option(help="Source of the event.")] = None,
    tenant: Annotated[_Words, typer.Option(help="Tenant.")] = None,
    since: Annotated[
        str | None, typer.Option(help="First seen at or after: 2026-11-21T20:10Z, or 2h ago as 2h.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="First seen before.")] = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Only resolved letters.")] = False,
    unresolved: Annotated[
        bool, typer.Option("--unresolved", help="Only unresolved letters (the default).")
    ] = False,
    all_states: Annotated[bool, typer.Option("--all", help="Resolved or not.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
) -> Filters:
    """The filters that these options mean. Raises BadParameter and Misconfigured."""
    if resolved + unresolved + all_states > 1:
        raise typer.BadParameter("give only one of --resolved, --unresolved and --all")
    unknown = [name for name in reason or () if name not in REASONS]
    if unknown:
        raise Misconfigured(f"--reason {unknown[0]} is none; these are: {', '.join(REASONS)}")
    try:
        times = [moment(text) if text else None for text in (since, until)]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return Filters(
        families=family or (),
        types=event_type or (),
        reasons=reason or (),
        sources=source or (),
        tenants=tenant or (),
        since=times[0],
        until=times[1],
        ids=[*(ids or ()), *(more_ids or ())],
        state="all" if all_states else "resolved" if resolved else "unresolved",
        limit=limit,
    )


def with_filters(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each filter in place of its parameter `filters`."""
    options = inspect.signature(_filters).parameters
    own = inspect.signature(command).parameters

    def run(**given: Any) -> None:
        filters = _filters(**{name: given.pop(name) for name in options})
        command(filters=filters, **given)

    run.__doc__ = command.__doc__
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in (*options.values(), *own.values())
        if parameter.name != "filters"
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run
