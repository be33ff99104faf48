"""The project itself: `worker run --drain`, as an operator would run it, with its default settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from benchmarks.contenders.contender import Contender, python
from benchmarks.load import Load
from benchmarks.services import Place


@dataclass(frozen=True)
class Ours(Contender):
    """The worker, in one process or several; `batched` publishes its backlog in batch mode."""

    processes: int = 1
    batched: bool = False
    drain: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)

    def prepared(self, load: Load) -> Load:
        """The same events, in batches where it is to be measured so."""
        return load.in_batches() if self.batched else load

    def in_service(self) -> "Ours":
        """Without --drain, which would end it at the first moment without a message."""
        return replace(self, drain=False)

    def can(self, load_name: str) -> bool:
        """Batch mode is measured with logs."""
        return super().can(load_name) and (not self.batched or load_name == "logs")

    def commands(self, place: Place, load: Load) -> list[tuple[list[str], Mapping[str, str]]]:
        """One command; with several processes it is the supervisor that starts them."""
        arguments = ["-m", "worker", "run", *(["--drain"] if self.drain else [])]
        arguments += ["--families", ",".join(load.families)]
        if self.processes > 1:
            arguments += ["--processes", str(self.processes)]
        environment = {
            "DATABASE_URL": place.database_url,
            "AMQP_URL": place.amqp_url,
            "WORKER_HTTP_PORT": "0",
            "WORKER_LOG_LEVEL": "warning",
            "WORKER_NAME": "bench",
            **self.settings,
        }
        return [(python(*arguments), environment)]
