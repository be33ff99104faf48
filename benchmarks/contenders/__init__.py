"""Everything that is measured: what it is called, how it is started, which queues it reads.

`CONTENDERS` is the one list; a contender that cannot run here says why in a sentence (`missing`).
"""

from benchmarks.contenders.bare_copy import BareCopy
from benchmarks.contenders.contender import Contender
from benchmarks.contenders.ours import Ours
from benchmarks.contenders.peers import PEERS
from benchmarks.contenders.reference import Reference
from benchmarks.contenders.without import WITHOUT

CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (
        Reference("reference", processes=1),
        Reference("reference-2", processes=2),
        Reference("reference-event-a-message", processes=1, one_a_message=True),
        BareCopy(),
        Ours("ours", processes=1),
        Ours("ours-2", processes=2),
        Ours("ours-batch", processes=1, batched=True),
        *PEERS,
        *WITHOUT,
    )
}

__all__ = ["CONTENDERS", "Contender"]
