"""Embeddings: pgvector's type where it can be had, REAL[] where it cannot, and the same nearest neighbours from both."""

import asyncio
import os
from urllib.parse import urlsplit, urlunsplit

import pytest
from support.events import decoded
from support.tables import connected, rows

from contracts import knowledge
from contracts.identifiers import uuid7
from contracts.knowledge import DIMENSIONS, KnowledgeEntryRecorded, KnowledgeEntryUpdated
from worker.families import plan
from worker.store import embedding, migrations
from worker.store.database import Database
from worker.store.persist import Persister
from worker.store.writer import Writer

NEAREST = """
SELECT entity_name, embedding_distance(embedding, to_embedding($1)) AS distance FROM knowledge_entries
WHERE tenant_id = 'default' AND embedding IS NOT NULL
ORDER BY embedding_distance(embedding, to_embedding($1)) LIMIT 2"""
TYPE = """
SELECT format_type(atttypid, atttypmod) AS type FROM pg_attribute
WHERE attrelid = 'knowledge_entries'::regclass AND attname = 'embedding'"""
HERE = "SELECT count(*) AS count FROM pg_available_extensions WHERE name = 'vector'"


def towards(*heading: float) -> list[float]:
    """An embedding that lies in this direction of the first few dimensions."""
    return [*heading, *([0.0] * (DIMENSIONS - len(heading)))]


def entry(name: str, *heading: float) -> KnowledgeEntryRecorded:
    return KnowledgeEntryRecorded(
        id=uuid7(), entity_type="place", entity_name=name, embedding=towards(*heading)
    )


async def tell(database: Database, *contents) -> None:
    persister = Persister(database, Writer(plan()), "agent-activity", "agent.replies.*")
    committed = await persister.persist(decoded(*(c.event(source="/a") for c in contents)))
    assert {outcome.outcome for outcome in committed.outcomes} == {"persisted"}


async def nearest(url: str, *heading: float) -> list[tuple[str, float]]:
    found = await rows(url, NEAREST, str(towards(*heading)))
    return [(row["entity_name"], round(row["distance"], 4)) for row in found]


async def type_of(url: str) -> str:
    [row] = await rows(url, TYPE)
    return row["type"]


@pytest.fixture
async def plain_url(empty_database_url):
    """A database whose migrations ran as a role that may not install extensions."""
    role, name = f"migrant_{os.getpid()}", urlsplit(empty_database_url).path[1:]
    async with connected(empty_database_url) as admin:
        if not await admin.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
            pytest.skip("only a superuser makes roles")
        await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
        await admin.execute(f"ALTER DATABASE {name} OWNER TO {role}")
    parts = urlsplit(empty_database_url)
    url = urlunsplit(parts._replace(netloc=f"{role}:secret@{parts.hostname}:{parts.port}"))
    await asyncio.to_thread(migrations.upgrade, url)
    yield url
    async with connected(empty_database_url) as admin:
        await admin.execute(f"ALTER DATABASE {name} OWNER TO CURRENT_USER")
        await admin.execute(f"DROP OWNED BY {role} CASCADE")
        await admin.execute(f"DROP ROLE {role}")


async def neighbours_are_found(url: str) -> None:
    """Store three embeddings, move one, and ask for the two that lie nearest."""
    database = Database(url, name="test")
    moved = entry("moved", 0, 0, 1)
    await tell(database, entry("east", 1), entry("north", 0, 1), moved)
    assert await nearest(url, 1, 0.1) == [("east", 0.005), ("north", 0.9005)]
    await tell(database, KnowledgeEntryUpdated(id=moved.id, embedding=towards(1, 0.1)))
    assert await nearest(url, 1, 0.1) == [("moved", 0), ("east", 0.005)]
    await database.close()


def test_contract_and_column_have_the_same_dimensions():
    """The contract cannot import the column's, nor the other way round."""
    assert knowledge.DIMENSIONS == embedding.DIMENSIONS


async def test_neighbours_with_pgvector(database_url):
    """The column is pgvector's, with an index that the search uses."""
    if not (await rows(database_url, HERE))[0]["count"]:
        pytest.skip("this server has no pgvector")
    assert await type_of(database_url) == "vector(1536)"
    await neighbours_are_found(database_url)
    async with connected(database_url) as connection:
        await connection.execute("SET enable_sort = off")  # three rows would be sorted
        explained = await connection.fetch("EXPLAIN " + NEAREST, str(towards(1)))
    assert "ix_knowledge_entries_embedding" in str(explained)


async def test_neighbours_without_pgvector_and_with_it_later(plain_url, empty_database_url):
    """A role that may not install it goes without, exactly; once somebody has, use_pgvector() takes it up beside a worker."""
    assert await type_of(plain_url) == "real[]"
    await neighbours_are_found(plain_url)
    if not (await rows(plain_url, HERE))[0]["count"]:
        pytest.skip("this server has no pgvector")
    database = Database(plain_url, name="test")
    await tell(database, entry("before", 0, 0, 0, 1))
    [before] = await rows(plain_url, "SELECT use_pgvector() AS done")
    async with connected(empty_database_url) as admin:
        await admin.execute("CREATE EXTENSION vector")
    [after] = await rows(plain_url, "SELECT use_pgvector() AS done")
    [again] = await rows(plain_url, "SELECT use_pgvector() AS done")
    assert (before["done"], after["done"], again["done"]) == (False, True, False)
    assert await type_of(plain_url) == "vector(1536)"
    await tell(database, entry("after", 0, 0, 0, 0.9, 0.1))
    await database.close()
    assert [name for name, _ in await nearest(plain_url, 0, 0, 0, 1)] == ["before", "after"]
