"""`worker topology`: the exchanges and queues that the worker needs."""

from typing import Annotated

import typer

from worker.cli import output, session
from worker.operations import installation

group = typer.Typer(help="Exchanges, queues and bindings in RabbitMQ.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add `worker topology`."""
    app.add_typer(group, name="topology")


@group.command()
def apply(json: Json = False) -> None:
    """Declare what is missing and bind every queue; safe to run again.

    Where something exists in another form nothing is changed: it says which argument differs and exits 2.
    """
    settings = session.load_settings("broker")
    new = session.run(installation.apply_topology(settings))
    if json:
        output.print_json({"broker": settings.broker_place, "declared": new})
        return
    for name in new:
        output.console.print(f"declared {name}", markup=False)
    text = "bindings renewed" if new else "all was there already"
    output.console.print(
        f"The topology of {settings.broker_place} is complete; {text}.", markup=False
    )


@group.command()
def show(json: Json = False) -> None:
    """Show what the worker needs, compared with what there is; the arguments stand in --json.

    Bindings cannot be seen over AMQP; `worker topology apply` renews them.
    """
    parts = session.run(installation.show_topology(session.load_settings("broker")))
    if json:
        output.print_json(parts)
        return
    output.print_table(
        "Exchanges and queues",
        ("name", "kind", "type", "bound to", "state"),
        [
            (
                part.name,
                part.kind,
                part.type,
                f"{part.bound_to} {' '.join(part.routing_keys)}" if part.bound_to else None,
                part.problem or "ok",
            )
            for part in parts
        ],
    )
