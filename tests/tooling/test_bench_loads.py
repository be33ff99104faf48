"""The loads of the benchmarks, and the tables that the reference program is built with."""

import orjson
import pytest

from benchmarks.load import Load, family_of, make
from benchmarks.reference.generate import MEASURED, Generator
from benchmarks.retold import retold
from worker.decode import Decoder
from worker.families import families
from worker.message import Delivery, Message, Properties
from worker.store.plan import make_plan


@pytest.mark.parametrize(
    ("name", "size"), [("logs", 600), ("lifecycle", 400), ("trajectories", 8000), ("mix", 1300)]
)
def test_events_of_a_load_keep_their_contracts_and_have_its_size(name, size):
    """A load of events that workers refuse, or of other sizes than it says, would measure something else."""
    load = make(name, 60)
    decoders = {family.name: Decoder(family.contract) for family in families().values()}
    for event, body in zip(load.events, load.bodies, strict=True):
        family = next(name for name in load.families if event["type"] in families()[name].contract.types)  # fmt: skip
        [decoded] = decoders[family].decode(
            Delivery(family, 1, False, "", event["type"], body.content, Properties(), b"")
        )
        assert isinstance(decoded, Message), decoded.errors
    assert load.size == pytest.approx(size, rel=0.12)
    assert sum(load.rows.values()) == 60


@pytest.mark.parametrize("name", [*families(), "all"])
def test_a_family_is_retold_with_ids_that_are_new_each_time(name):
    """Examples told twice under the same ids would be duplicates, which cost less than rows."""
    chosen = list(families()) if name == "all" else [name]
    events = retold(chosen, 300)
    assert len(events) == len({event["id"] for event in events}) == 300
    load = Load("families", events)
    assert list(load.families) == sorted(chosen)
    keys = {}
    for event, body in zip(events, load.bodies, strict=True):
        decoder = Decoder(families()[family_of(event["type"])].contract)
        [decoded] = decoder.decode(
            Delivery(name, 1, False, "", event["type"], body.content, Properties(), b"")
        )
        assert isinstance(decoded, Message), decoded.errors
        assert keys.setdefault((decoded.type, decoded.key), decoded.id) == decoded.id


def test_nobody_retells_a_family_without_examples():
    """An empty story would be told for ever."""
    with pytest.raises(LookupError, match="no example belongs to nothing"):
        retold(["nothing"], 1)


def test_batches_hold_the_events_of_one_family_each():
    """Batch mode refuses an event of another family."""
    load = make("mix", 1200).in_batches()
    sizes = [len(orjson.loads(body.content)) for body in load.bodies]
    assert sum(sizes) == 1200
    assert len(load.bodies) == 4
    for body in load.bodies:
        types = {event["type"].partition(".")[0] for event in orjson.loads(body.content)}
        assert types == {body.routing_key.partition(".")[0]}


def test_the_reference_is_built_from_the_declared_tables():
    """Every event type that is measured, and the worker's own merge; one that reads from elsewhere stops the generator."""
    text = Generator().text()
    measured = [families()[name] for name in MEASURED]
    for family in measured:
        for event in family.contract.types:
            assert f'"{event}"' in text
    for entity in make_plan(measured).entity_order:
        assert f"FROM stage_{entity.table.name}) AS u" in text
        assert f"FROM named_{entity.table.name} AS u" in text
