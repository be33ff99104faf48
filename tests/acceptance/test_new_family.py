"""Adding a family is three files of one name and no edit elsewhere."""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

from support.tables import rows

ROOT = Path(__file__).parents[2]

CONTRACT = '''
"""Greetings between agents."""

from contracts.envelope import EventData
from contracts.fields import Key, Text
from contracts.registry import ContractFamily


class GreetingSent(EventData):
    """An agent greeted another. One row in `greetings`."""

    event_type = "greeting.sent"
    key_fields = ("greeting_id",)

    greeting_id: Key | None = None
    words: Text


FAMILY = ContractFamily("greeting", ("greeting.#",), (GreetingSent,))
'''

TABLES = '''
"""The table of the family `greeting`."""

from sqlalchemy import Column, PrimaryKeyConstraint, Table, Text, Uuid

from contracts import greeting as contract
from worker.store.declaration import Fact, Family
from worker.store.schema import Kind, fact_columns, metadata, tenant_column

greetings = Table(
    "greetings",
    metadata,
    Column("greeting_id", Uuid, nullable=False),
    tenant_column(),
    Column("words", Text, nullable=False),
    *fact_columns(),
    PrimaryKeyConstraint("greeting_id", "tenant_id"),
    info={"kind": Kind.FACT, "time_column": "created_at"},
)

FAMILY = Family(contract=contract.FAMILY, tables=(Fact("greeting.sent", greetings),), revision="9001")
'''

MIGRATION = '''
"""Greetings."""

from alembic import op

revision = "9001"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE greetings (
            greeting_id uuid NOT NULL, tenant_id text NOT NULL DEFAULT 'default', words text NOT NULL,
            event_id uuid NOT NULL, source text NOT NULL, extensions jsonb,
            content_digest bytea NOT NULL CONSTRAINT ck_greetings_content_digest CHECK (octet_length(content_digest) = 16),
            created_at timestamptz NOT NULL DEFAULT now(), recorded_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT pk_greetings PRIMARY KEY (greeting_id, tenant_id))
    """)
    op.execute("SELECT secure_tables()")


def downgrade() -> None:
    op.execute("DROP TABLE greetings")
'''


async def run(folder: Path, settings, *arguments: str, stdin: bytes = b"") -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "DATABASE_URL": settings.database,
        "AMQP_URL": settings.broker,
        "WORKER_HTTP_PORT": "0",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=folder,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate(stdin)
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_a_made_up_family_needs_three_files_and_no_edit(tmp_path, settings):
    """Contract, table, migration: then its queue exists, its messages land and its documents tell of it."""
    for name in ("contracts", "worker", "alembic"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    head = max(path.name[:4] for path in (tmp_path / "alembic/versions").glob("[0-9]*.py"))
    (tmp_path / "contracts/greeting.py").write_text(CONTRACT)
    (tmp_path / "worker/families/greeting.py").write_text(TABLES)
    (tmp_path / "alembic/versions/9001_greeting.py").write_text(MIGRATION.format(head=head))

    await run(tmp_path, settings, "-m", "alembic", "upgrade", "head")
    assert "queue worker.greeting" in await run(
        tmp_path, settings, "-m", "worker", "topology", "apply"
    )
    event = {
        "specversion": "1.0",
        "id": "019a9f6e-2f0b-7c44-9d2b-0c8a6f1f5e21",
        "source": "/agents/a",
        "type": "greeting.sent",
        "time": "2026-11-21T20:10:04Z",
        "data": {"words": "hello"},
    }
    wrong = {**event, "data": {"words": ""}}
    lines = b"\n".join(json.dumps(each).encode() for each in (event, event, wrong))
    await run(tmp_path, settings, "-m", "worker", "publish", "-", stdin=lines)
    await run(tmp_path, settings, "-m", "worker", "run", "--drain")
    assert await rows(settings.database, "SELECT words FROM greetings") == [{"words": "hello"}]
    letters = await rows(settings.database, "SELECT family, reason FROM dead_letters")
    assert letters == [{"family": "greeting", "reason": "invalid"}]
    schema = await run(
        tmp_path, settings, "-m", "worker", "contracts", "export", "--format", "asyncapi"
    )
    assert "greeting.sent" in schema
