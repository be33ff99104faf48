"""What a person sees of a measurement: figures of all stages together and of each alone, and the verdict."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker.bench.results import Results
from worker.bench.verdict import Limit

UNKNOWN = "\N{EN DASH}"


def show(results: Results, console: Console) -> None:
    """Print it."""
    for table in (_together(results), _alone(results)):
        console.print()
        console.print(table)
    console.print()
    verdict, accounts = results.verdict, results.accounts
    console.print(Text(verdict.text, style="bold"), soft_wrap=True)
    console.print(Text(verdict.advice), soft_wrap=True)
    console.print()
    if accounts.complete:
        text = f"Every one of {accounts.published:,} messages is accounted for."
        console.print(Text(text, style="bold green"), soft_wrap=True)
    for problem in accounts.problems:
        console.print(Text(f"No: {problem}.", style="bold red"), soft_wrap=True)


def _together(results: Results) -> Table:
    backlog, latency = results.backlog, results.latency
    table = _table(
        f"All together: {results.family}, {results.body_bytes:,} bytes a message, processes: {results.processes}"
    )
    used = results.worker_cpu_per_10k
    for name, figure, what in (
        ("rate", f"{backlog.rate:,.0f}/s", f"a backlog of {backlog.messages:,} messages"),
        ("latency p50", _ms(latency.p50), f"publish to confirmation, {latency.rate:g} messages/s"),
        ("latency p99", _ms(latency.p99), f"the same, of {latency.messages:,} messages"),
        ("broker confirm p50", _ms(latency.broker_confirm), "of these: until the broker has it"),
        ("worker CPU", UNKNOWN if used is None else f"{used:.2f} s", "for 10,000 messages"),
        ("machine", _percent(backlog.machine_busy), f"busy, of {results.cores} cores"),
    ):
        table.add_row(name, figure, what)
    return table


def _alone(results: Results) -> Table:
    answers = results.answers
    table = _table("Each stage alone")
    limits: dict[str, Limit] = {limit.stage: limit for limit in results.verdict.limits}
    what = {
        "broker": f"hands out and takes acknowledgements; publishing {results.broker.publish_rate:,.0f}/s; "
        f"round trip {_ms(results.broker_round_trip)}",
        "database": f"stores decoded messages; round trip {_ms(answers.round_trip)}, commit {_ms(answers.commit)}",
        "worker": f"its CPU time alone; decoding {results.database.decode_rate:,.0f}/s a core",
    }
    for stage, text in what.items():
        table.add_row(stage, _rate(limits.get(stage)), text)
    return table


def _table(title: str) -> Table:
    table = Table(
        title=title, title_style="bold", title_justify="left", box=None, show_header=False
    )
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    return table


def _rate(limit: Limit | None) -> str:
    if limit is None:
        return UNKNOWN
    return f"{'≥ ' if limit.at_least else ''}{limit.rate:,.0f}/s"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.2f} ms"


def _percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{share:.0%}"
