"""Deployments under load: old and new workers, and the migration between them, at once."""

import asyncio
import json
import shutil
import signal
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.ext.asyncio import create_async_engine
from support.broker import client
from support.events import created, logged
from support.ledger import Ledger
from support.letters import broker
from support.tables import count, rows
from support.workers import drain, environment, running_worker, worker_process

from contracts.identifiers import uuid7
from worker.broker import topology
from worker.families.execution_log import execution_logs
from worker.store.migrations import downgrade, upgrade
from worker.store.partitions import Month, ensure_partitions

ROOT = Path(__file__).parents[2]

MIGRATION = '''
"""A column that says where."""

from alembic import op

revision = "9001"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '20s'")
    op.execute("ALTER TABLE execution_logs ADD COLUMN host text")
    op.execute("ALTER TABLE tasks ADD COLUMN host text")


def downgrade() -> None:
    op.execute("ALTER TABLE tasks DROP COLUMN host")
    op.execute("ALTER TABLE execution_logs DROP COLUMN host")
'''


def next_version(folder: Path) -> None:
    """This code with one more optional member, its column and its migration."""
    for name in ("contracts", "worker", "alembic"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    head = max(path.name[:4] for path in (folder / "alembic/versions").glob("[0-9]*.py"))
    (folder / "alembic/versions/9001_host.py").write_text(MIGRATION.format(head=head))
    _change(
        folder / "contracts/execution_log.py",
        "    status: ",
        "    host: Text | None = None\n    status: ",
    )
    table = folder / "worker/families/execution_log.py"
    _change(
        table, '    Column("action", Text', '    Column("host", Text),\n    Column("action", Text'
    )
    _change(table, 'REVISION = "', 'REVISION = "9001"  # was "')


def _change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path.name} has changed: {old}"
    path.write_text(text.replace(old, new, 1))


@asynccontextmanager
async def process(folder: Path, settings, *arguments: str, **extra: str):
    """A command of the code in a folder."""
    own = {**environment(settings, **extra), "PYTHONPATH": str(folder)}
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, cwd=folder, env=own
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


async def test_old_and_new_workers_and_the_migration_between_them_at_once(tmp_path, settings):
    """Under load: migrated beside old workers, new ones added, old ones stopped; every message of either kind lands once."""
    next_version(tmp_path)
    ledger = Ledger()
    quick = settings.model_copy(update={"outbox_sweep_after": 1.0})
    task, stop = uuid7(), asyncio.Event()

    async def load(agent) -> None:
        while not stop.is_set():
            await ledger.publish(agent, [created(), *(logged(task) for _ in range(5))])
            await agent.confirmed(1)

    async with (
        client(settings.broker) as agent,
        client(settings.broker) as publisher,
        worker_process(quick) as old,
    ):
        loading = asyncio.create_task(load(publisher))
        async with process(tmp_path, quick, "alembic", "upgrade", "head") as migrating:
            assert await migrating.wait() == 0
        async with process(tmp_path, quick, "worker", "run") as new:
            await ledger.hear(agent)  # of what was published before, beside and after it
            old.signal(signal.SIGTERM)
            assert await old.ended() == 0
            stop.set()
            await loading
            later = json.loads(logged(task).to_json())
            later["data"]["host"] = "node-1"
            await agent.publish(json.dumps(later).encode())
            await ledger.hear(agent)
            while later["id"] not in ledger.said:
                for outcome, items in (await agent.confirmed(1)).items():
                    for item in items:
                        ledger.said[item["id"]][outcome] += 1
            new.send_signal(signal.SIGTERM)
            assert await new.wait() == 0
    found = await rows(
        settings.database, "SELECT event_id::text FROM execution_logs WHERE host = 'node-1'"
    )
    assert found == [{"event_id": later["id"]}]
    ledger.published.append(logged().model_copy(update={"id": later["id"]}))
    await ledger.balance(settings.database)


async def test_partitions_columns_and_indexes_are_added_beside_running_workers(settings):
    """What maintenance and additive migrations do, again and again under load: nothing is refused, nothing lost."""
    ledger = Ledger()
    small = settings.model_copy(update={"batch_messages": 20})
    stop = asyncio.Event()
    ahead = Month.of(datetime.now(UTC))

    async def load(agent) -> None:
        while not stop.is_set():
            task = uuid7()
            later = datetime(ahead.plus(13).year, ahead.plus(13).number, 9, tzinfo=UTC)
            key = uuid7(int(later.timestamp() * 1000))
            await ledger.publish(
                agent, [logged(task, log_id=key), created(task), *(logged(task) for _ in range(9))]
            )

    async with client(settings.broker) as agent, running_worker(small), running_worker(small):
        loading = asyncio.create_task(load(agent))
        engine = create_async_engine(settings.database)
        async with engine.connect() as connection:
            assert await ensure_partitions(connection, execution_logs, months_ahead=14)
        await engine.dispose()
        for number in range(8):
            table = ("execution_logs", "tasks", "lifecycle_events")[number % 3]
            await rows(settings.database, f"ALTER TABLE {table} ADD COLUMN extra_{number} text")
            await rows(settings.database, f"CREATE INDEX ON {table} (extra_{number})")
        await rows(settings.database, "ALTER TABLE execution_logs ALTER COLUMN action TYPE varchar")
        stop.set()
        await loading
        await ledger.hear(agent)
    assert await count(settings.database, "dead_letters") == 0
    await ledger.balance(settings.database)


async def test_a_worker_that_lacks_its_migration_refuses_and_takes_nothing(settings):
    """Exit 2 before a message is touched; migrated, the same messages land at their first delivery."""
    ledger = Ledger()
    await asyncio.to_thread(downgrade, settings.database, "-1")
    async with client(settings.broker) as agent:
        await ledger.publish(agent, [logged() for _ in range(40)])
        async with worker_process(settings) as early:
            assert await early.ended() == 2
        async with broker(settings) as connection:
            queue = topology.queue_name("execution-log")
            assert await topology.message_count(connection, queue) == 40
        await asyncio.to_thread(upgrade, settings.database)
        await drain(settings)
        await ledger.hear(agent)
    await ledger.balance(settings.database)
