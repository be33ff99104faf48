"""One suite for every registered type, driven by the registry and the examples: whatever family comes, this holds for it.

Once, any order, placeholders, duplicates, conflicts, bad input. One database for all: each test has tenants of its own,
which are part of every key.
"""

import copy
import itertools
import json
import os
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from ipaddress import ip_address
from uuid import UUID, uuid5

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import Table
from support.events import delivery
from support.tables import connected

from contracts import check
from contracts.example_files import invalid_examples, valid_examples
from contracts.identifiers import uuid7
from contracts.registry import contract_types, families
from worker.decode import Decoder
from worker.families import plan
from worker.message import Accepted, Rejected
from worker.store.bulk import is_json
from worker.store.database import Database
from worker.store.declaration import Entity
from worker.store.embedding import Embedding
from worker.store.lifecycle import lifecycle_events
from worker.store.persist import Persister
from worker.store.schema import member_of
from worker.store.writer import Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

TYPES = sorted(contract_types())
ORDERS = 6
MAY_DIFFER = {
    "updated_at",
    "recorded_at",
    "tenant_id",
    "content_digest",
}  # the digest is over the tenant, too
START = datetime(2026, 11, 21, 20, tzinfo=UTC)
_tenants = itertools.count()


def new_tenant() -> str:
    return f"conformance-{next(_tenants)}"


class Store:
    """The transaction of the worker, and a look at what it wrote."""

    def __init__(self, database: Database, connection: asyncpg.Connection) -> None:
        self._connection = connection
        writer = Writer(plan())
        self._persisters = {
            name: Persister(database, writer, name, "agent.replies.*") for name in families()
        }
        self._decoders = {
            name: Decoder(family, facts=plan().facts) for name, family in families().items()
        }

    async def commit(self, *events: dict) -> list:
        """Commit events (as JSON objects) of one family; their outcomes, in order of the events."""
        family, _ = contract_types()[events[0]["type"]]
        decoded = []
        for event in events:
            body = json.dumps(event).encode()
            decoded += self._decoders[family.name].decode(delivery(body, family=family.name))
        committed = await self._persisters[family.name].persist(decoded)
        found = {id(_of(outcome)): outcome for outcome in committed.outcomes}
        return [found[id(item.delivery)] for item in decoded]

    async def rows(self, table, tenant: str) -> list[dict]:
        """A tenant's rows of a table."""
        return await self.fetch(f"SELECT * FROM {table.name} WHERE tenant_id = $1", tenant)

    async def fetch(self, sql: str, *arguments) -> list[dict]:
        return [dict(row) for row in await self._connection.fetch(sql, *arguments)]

    async def everything(self, tenant: str, *event_types: str) -> dict[str, list[str]]:
        """All rows of a tenant in the tables that these types reach, without what may differ between two orders."""
        found = {}
        for table in reached(event_types):
            rows = [
                {name: value for name, value in row.items() if name not in MAY_DIFFER}
                for row in await self.rows(table, tenant)
            ]
            found[table.name] = sorted(map(str, rows))
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(postgres, _template):
    """One migrated database, and one connection to look into it, for all tests of this module."""
    name = f"conformance_{os.getpid()}"
    url = postgres.create(name, template=_template)
    database = Database(url, name="conformance")
    async with connected(url) as connection:
        yield Store(database, connection)
    await database.close()
    postgres.drop(name)


def _of(outcome):
    return outcome.message.delivery if isinstance(outcome, Accepted) else outcome.delivery


def told(outcomes) -> list[str]:
    """What became of each: persisted, duplicate, or the reason of its rejection."""
    return [o.outcome if isinstance(o, Accepted) else o.reason for o in outcomes]


def of_tenant(event: dict, tenant: str, **changes) -> dict:
    """An example, moved to a tenant of this test."""
    return {**copy.deepcopy(event), "tenantid": tenant, **changes}


def declared(event_type: str):
    return plan().entities.get(event_type) or plan().facts[event_type]


def table_of(event_type: str):
    return declared(event_type).table


def parents_of(event: dict):
    """The entities that an event names beside its own: table, key."""
    entity_or_fact = declared(event["type"])
    sets = entity_or_fact.folds[event["type"]].sets if isinstance(entity_or_fact, Entity) else None
    for parent in entity_or_fact.parents:
        key = event["data"].get(parent.column)
        if key is not None and (sets is None or parent.column in sets):
            yield parent.table, key


def reached(event_types) -> list[Table]:
    """The tables of these types, of the parents that they name, and lifecycle_events."""
    tables = [declared(name).table for name in event_types]
    tables += [parent.table for name in event_types for parent in declared(name).parents]
    return list(dict.fromkeys([*tables, lifecycle_events]))


@cache
def other_content(event_type: str, event_text: str) -> dict:
    """The event with other data that its contract accepts, under the same key."""
    event = json.loads(event_text)
    _, contract = contract_types()[event_type]
    own_key = () if event_type in plan().entities else plan().facts[event_type].key_members
    for member in event["data"].keys() - set(own_key) - set(contract.key_fields):
        for replacement in (..., str(uuid7())):
            other = copy.deepcopy(event)
            if replacement is ...:
                del other["data"][member]
            else:
                other["data"][member] = replacement
            if not check(other):
                return other
    raise AssertionError(f"no other content of {event_type} was found: add a larger valid example")


@pytest.mark.parametrize("event_type", TYPES)
async def test_once(event_type, store):
    """Each valid example is one row of its table, once; the same again is a duplicate, and changes nothing."""
    for example in valid_examples(event_type):
        tenant = new_tenant()
        event = of_tenant(example.event, tenant)
        assert told(await store.commit(event, event)) == ["persisted", "duplicate"]
        before = await store.everything(tenant, event_type)
        assert len(before[table_of(event_type).name]) >= 1, example.name
        later = of_tenant(event, tenant, source="/another", time="2026-12-01T00:00:00Z")
        assert told(await store.commit(event, later)) == ["duplicate", "duplicate"]
        assert await store.everything(tenant, event_type) == before, example.name


@pytest.mark.parametrize("padding", [0, 5_000], ids=["small", "large"])
@pytest.mark.parametrize("event_type", TYPES)
async def test_every_member_is_stored_as_it_was_sent(event_type, padding, store):
    """What the full example says is found in the columns of its names, and in lifecycle_events for an entity.

    JSON of large events takes another way, and says the same.
    """
    event = next(e for e in valid_examples(event_type) if e.name == "valid-full").event
    tenant = new_tenant()
    await store.commit(of_tenant(event, tenant, padding="x" * padding))
    goes_to, table = declared(event_type), table_of(event_type)
    columns = {member_of(column): column for column in table.c}
    key = goes_to.key_member if isinstance(goes_to, Entity) else goes_to.key_members[0]
    rows = await store.rows(table, tenant)
    [row] = [row for row in rows if str(row[columns[key].name]) == event["data"][key]]
    names = set(event["data"])
    if isinstance(goes_to, Entity):
        names &= {*goes_to.folds[event_type].sets, key}
        records = await store.rows(lifecycle_events, tenant)
        [record] = [record for record in records if str(record["event_id"]) == event["id"]]
        assert json.loads(record["data"]) == event["data"]
    assert {name: _plain(row[columns[name].name], columns[name]) for name in names} == {
        name: _sent(event["data"][name], columns[name]) for name in names
    }


def _plain(value, column):
    """A value of the database as JSON would say it."""
    match value:
        case str() if is_json(column):
            return json.loads(value)
        case list() if isinstance(column.type, Embedding):
            return [round(number, 5) for number in value]
        case datetime():
            return value
        case Decimal():
            return float(value)
        case UUID():
            return str(value)
        case _ if hasattr(value, "is_link_local"):
            return str(getattr(value, "ip", value))
        case _:
            return value


def _sent(value, column):
    """A member as it was sent, where the database has it in another form."""
    if isinstance(value, str) and column.type.python_type is datetime:
        return datetime.fromisoformat(value)
    if isinstance(value, str) and "INET" in str(column.type):
        return str(ip_address(value))
    return value


@pytest.mark.parametrize("event_type", TYPES)
async def test_conflicts(event_type, store):
    """The same key with other content is a conflict, in one batch and in two; the first to commit stays."""
    full = next(e for e in valid_examples(event_type) if e.name == "valid-full").event
    if len(full["data"]) == 1:
        other = copy.deepcopy(full)
        [(member, _)] = other["data"].items()
        other["data"][member] = str(uuid7())
    else:
        other = other_content(event_type, json.dumps(full))
    tenant = new_tenant()
    first, second = of_tenant(full, tenant), of_tenant(other, tenant)
    assert told(await store.commit(first, second)) == ["persisted", "conflict"]
    before = await store.everything(tenant, event_type)
    assert told(await store.commit(second, first)) == ["conflict", "duplicate"]
    name = table_of(event_type).name
    assert (await store.everything(tenant, event_type))[name] == before[name]


@pytest.mark.parametrize("event_type", TYPES)
async def test_placeholders(event_type, store):
    """What an event names and nobody has told of is there as a placeholder, until its own event comes."""
    event = next(e for e in valid_examples(event_type) if e.name == "valid-full").event
    tenant = new_tenant()
    assert told(await store.commit(of_tenant(event, tenant))) == ["persisted"]
    for table, key in parents_of(event):
        entity = plan().entity_of[table.name]
        rows = await store.rows(table, tenant)
        [row] = [row for row in rows if str(row[entity.key]) == key]
        assert row["placeholder"]
        assert row["version"] == 0
        orphans = await store.fetch("SELECT * FROM orphans WHERE tenant_id = $1", tenant)
        assert (table.name, key) in {(one["table_name"], one["entity_id"]) for one in orphans}
        creating = next(name for name, fold in entity.folds.items() if fold.creates)
        own = of_tenant(valid_examples(creating)[0].event, tenant, id=str(uuid7()))
        own["data"] = {**own["data"], entity.key_member: key}
        assert told(await store.commit(own)) == ["persisted"]
        rows = await store.rows(table, tenant)
        [row] = [row for row in rows if str(row[entity.key]) == key]
        assert not row["placeholder"]
        assert row["created_at"] == datetime.fromisoformat(own["time"])


@pytest.mark.parametrize("event_type", TYPES)
async def test_bad_input(event_type, store):
    """Each invalid example is one dead letter that names its error; what is valid beside it lands."""
    tenant = new_tenant()
    good = of_tenant(valid_examples(event_type)[0].event, tenant)
    bad = [{**copy.deepcopy(e.event), "subject": tenant} for e in invalid_examples(event_type)]
    outcomes = await store.commit(*bad[:1], good, *bad[1:])
    assert told(outcomes) == ["invalid", "persisted", *(["invalid"] * (len(bad) - 1))]
    rejected = [outcome for outcome in outcomes if isinstance(outcome, Rejected)]
    for example, outcome in zip(invalid_examples(event_type), rejected, strict=True):
        assert [tuple(error["loc"]) for error in outcome.errors] == [
            loc for loc, _ in example.errors
        ]
    letters = await store.fetch(
        "SELECT body FROM dead_letters WHERE type = $1 AND reason = 'invalid'", event_type
    )
    assert {json.dumps(event).encode() for event in bad} <= {letter["body"] for letter in letters}
    assert len(await store.rows(table_of(event_type), tenant)) >= 1


def life_of(family_name: str) -> list[dict]:
    """Two events of every type of a family, close in time, some at the same; entities share two keys."""
    events = []
    for number, event_type in enumerate(families()[family_name].types):
        for example in valid_examples(event_type):
            for copy_number in range(2):
                if _has_parts(event_type) and (copy_number or example.name != "valid-full"):
                    continue  # another would be in conflict about the parts
                event = copy.deepcopy(example.event)
                event["id"] = str(uuid5(UUID(int=number), f"{example.name} {copy_number}"))
                minutes = (number * 7 + copy_number * 3) % 5
                event["time"] = (START + timedelta(minutes=minutes)).isoformat()
                for member in contract_types()[event_type][1].key_fields:
                    event["data"][member] = str(uuid5(UUID(event["id"]), member))
                entity = plan().entities.get(event_type)
                if entity is not None:
                    event["data"][entity.key_member] = _key(entity, copy_number)
                events.append(event)
    return events


def _has_parts(event_type: str) -> bool:
    entity = plan().entities.get(event_type)
    return entity is not None and entity.folds[event_type].parts is not None


def _key(entity: Entity, number: int) -> str:
    return str(uuid5(UUID(int=0), f"{entity.name} {number}"))


@pytest.mark.parametrize("family_name", sorted(families()))
async def test_any_order(family_name, store):
    """A family's events in any order, duplicated and cut into any transactions, give the same rows."""
    events = life_of(family_name)
    results = []
    for number in range(ORDERS):
        chances, tenant = random.Random(number), new_tenant()
        shuffled = [of_tenant(event, tenant) for event in events]
        shuffled += chances.sample(shuffled, len(shuffled) // 2)
        chances.shuffle(shuffled)
        outcomes = []
        while shuffled:
            size = chances.randint(1, len(shuffled))
            batch, shuffled = shuffled[:size], shuffled[size:]
            outcomes += told(await store.commit(*batch))
        assert set(outcomes) == {"persisted", "duplicate"}
        results.append(await store.everything(tenant, *families()[family_name].types))
    assert all(result == results[0] for result in results), "two orders gave two results"


async def test_every_column_is_set_by_some_event():
    """No column of a message's table is left that no event can fill."""
    own = {
        "clocks",
        "placeholder",
        "version",
        "created_at",
        "updated_at",
        "recorded_at",
        "tenant_id",
    }
    for name in TYPES:
        goes_to, table = declared(name), table_of(name)
        if isinstance(goes_to, Entity):
            filled = {goes_to.key, *goes_to.created_columns, *goes_to.own_columns, *goes_to.ranked}
            filled |= {"attempt"} if goes_to.has_attempts else set()
        else:
            filled = {*contract_types()[name][1].model_fields, *goes_to.event_time, *goes_to.key}
            filled |= {*goes_to.later, "event_id", "source", "extensions", "content_digest"}
        computed = {column.name for column in table.columns if column.computed is not None}
        assert set(table.c.keys()) <= filled | own | computed, table.name
