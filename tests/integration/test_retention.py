"""Retirement: old months leave through the archive, whatever happens on the way, and nothing else does."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
from support.archives import (
    SESSION,
    add_past_month,
    decide,
    fingerprint,
    key_in,
    make_session,
    middle,
    months_ago,
    say,
    talk,
)
from support.broker import client
from support.commands import command, running_command
from support.waiting import until
from support.workers import running_worker

from contracts.conversation import ConversationMessageRecorded
from contracts.identifiers import uuid7
from worker.errors import Misconfigured, WorkerError
from worker.operations import archive_files, retiring_months, retiring_rows
from worker.operations.archive_files import Archive
from worker.operations.archive_restore import restore
from worker.operations.retirement import retire
from worker.store import partitions
from worker.store.database import Database

OLD = months_ago(6)


@pytest.fixture
async def db(database_url):
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    await make_session(connection)
    yield connection
    await connection.close()


@pytest.fixture
async def database(database_url):
    database = Database(database_url, name="test")
    yield database
    await database.close()


@pytest.fixture
def run(database, tmp_path):
    """Retire by the default policy, or another; what was done, by table."""

    async def run(retention="", *, dry_run=False, folder=str(tmp_path)):
        done = await retire(database, retention, folder, dry_run=dry_run)
        return {one.table: one for one in done}

    return run


@pytest.fixture
def bring_back(database, tmp_path):
    async def bring_back(table="conversation_history", month=OLD, **how):
        return await restore(database, Archive(str(tmp_path)), table, str(month), **how)

    return bring_back


async def state(db):
    """Everything that retirement could change in the database."""
    tables = ("conversation_history", "agent_decisions", "trust_metrics", "trust_metrics_daily")
    names = await db.fetch("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') ORDER BY 1")
    return [name for (name,) in names], [await fingerprint(db, table) for table in tables]


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


async def test_a_month_leaves_and_comes_back_the_same(db, run, bring_back, tmp_path):
    """Into a file with its manifest, out of the table, and back with the same hash over all columns; once, however often."""
    name = await add_past_month(db, "conversation_history", OLD)
    await talk(db, OLD, 30)
    young = await say(db, uuid7(), datetime.now(UTC))
    before = await fingerprint(db, "conversation_history")
    done = (await run())["conversation_history"]
    assert (done.months, done.rows, done.parts) == ([str(OLD)], 30, [f"{name}.jsonl.gz"])
    assert [row["message_id"] for row in await db.fetch("SELECT * FROM conversation_history")] == [young]  # fmt: skip
    assert await db.fetchval("SELECT to_regclass($1)", name) is None
    assert set(files(tmp_path)) == {f"conversation_history/{name}.jsonl.gz{end}" for end in ("", ".json")}  # fmt: skip
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert (modes, (tmp_path / "conversation_history").stat().st_mode & 0o777) == ({0o600}, 0o700)

    written = files(tmp_path)
    again = (await run())["conversation_history"]
    assert (again.months, again.rows, files(tmp_path)) == ([], 0, written)

    assert (await bring_back(dry_run=True)).rows == 30
    assert await db.fetchval("SELECT count(*) FROM conversation_history") == 1
    back = await bring_back()
    assert (back.rows, back.present, back.erased) == (30, 0, 0)
    assert await fingerprint(db, "conversation_history") == before
    assert await db.fetchval(f"SELECT count(*) FROM {name}") == 30
    twice = await bring_back()
    assert (twice.rows, twice.present, twice.differing) == (0, 30, 0)
    assert await fingerprint(db, "conversation_history") == before


async def test_a_restored_month_is_held_and_then_leaves_into_the_same_file(
    db, run, bring_back, tmp_path
):
    """Maintenance leaves it alone for the days that were named; after them no second copy is made."""
    await add_past_month(db, "conversation_history", OLD)
    await talk(db, OLD, 3)
    await run()
    written = {name: text for name, text in files(tmp_path).items() if name.endswith(".gz")}
    await bring_back(keep_days=2)
    held = (await run())["conversation_history"]
    assert (held.months, held.rows) == ([], 0)
    assert f"{OLD} was restored, and is held" in held.kept[0]
    archive = Archive(str(tmp_path))
    for part in archive.parts():
        archive.hold(part, datetime.now(UTC) - timedelta(seconds=1))
    assert (await run())["conversation_history"].rows == 3
    assert {n: t for n, t in files(tmp_path).items() if n.endswith(".gz")} == written
    assert await db.fetchval("SELECT count(*) FROM conversation_history") == 0


async def test_a_dry_run_says_it_all_and_changes_nothing(db, run, tmp_path):
    """The same months and rows as the run after it; neither the database nor the folder is another."""
    await add_past_month(db, "conversation_history", OLD)
    await talk(db, OLD, 4)
    await say(db, uuid4(), middle(OLD))  # its key is of no month
    await decide(db, middle(months_ago(9)))
    await measure(db, 40, 5)
    before, there = await state(db), files(tmp_path)
    would = await run(dry_run=True)
    assert (await state(db), files(tmp_path)) == (before, there)
    did = await run()
    assert {t: (o.months, o.rows) for t, o in would.items()} == {
        t: (o.months, o.rows) for t, o in did.items()
    }
    assert {t: o.rows for t, o in did.items() if o.rows} == {
        "conversation_history": 5,
        "agent_decisions": 1,
        "trust_metrics": 1,
    }


async def test_without_a_folder_nothing_that_wants_an_archive_leaves(db, run):
    """It says so in a sentence; what is dropped by policy without an archive leaves all the same."""
    await add_past_month(db, "conversation_history", OLD)
    await talk(db, OLD, 2)
    await decide(db, middle(months_ago(9)))
    await measure(db, 40, 5)
    done = await run(folder="")
    for table in ("conversation_history", "agent_decisions"):
        assert done[table].months == []
        assert "WORKER_ARCHIVE names no folder" in done[table].kept[0]
    assert done["agent_audit_log"].kept == []
    assert done["trust_metrics"].rows == 1
    assert await db.fetchval("SELECT count(*) FROM conversation_history") == 2


async def test_rows_outside_of_months_leave_one_by_one(db, run, bring_back, monkeypatch):
    """Old rows of the default partition and of a table without partitions, in several transactions, and back again."""
    monkeypatch.setattr(retiring_rows, "ROWS_OF_A_PART", 2)
    for _ in range(5):
        await say(db, uuid4(), middle(OLD))  # in the default partition
    late = [
        await say(db, key_in(OLD), middle(OLD)) for _ in range(2)
    ]  # of a month without partition
    stays = [await say(db, uuid4(), datetime.now(UTC)), await decide(db, datetime.now(UTC))]
    for _ in range(3):
        await decide(db, middle(months_ago(9)))
    # JSON's null is not SQL's NULL.
    await db.execute("UPDATE agent_decisions SET action_taken = 'null' WHERE created_at < now() - interval '200 days'")  # fmt: skip
    talks, decisions = [
        await fingerprint(db, t) for t in ("conversation_history", "agent_decisions")
    ]
    done = await run()
    assert done["conversation_history"].rows == 7
    assert len(done["conversation_history"].parts) == 4
    assert done["agent_decisions"].rows == 3
    left = await db.fetch("SELECT message_id FROM conversation_history UNION ALL SELECT decision_id FROM agent_decisions")  # fmt: skip
    assert [key for (key,) in left] == stays
    assert (await bring_back()).rows == 7
    assert (await bring_back("agent_decisions", months_ago(9))).rows == 3
    assert await fingerprint(db, "conversation_history") == talks
    assert await fingerprint(db, "agent_decisions") == decisions
    name = OLD.partition_of("conversation_history")
    assert sorted(key for (key,) in await db.fetch(f"SELECT message_id FROM {name}")) == sorted(
        late
    )


STEPS = [
    (retiring_months, "_archive"),
    (retiring_months, "_drop"),
    (archive_files, "_write_manifest"),
    (archive_files.PartWriter, "finish"),
    (retiring_months, "write_rows"),
    (retiring_rows, "_delete"),
    (retiring_rows, "deletable"),
]


@pytest.mark.parametrize(("owner", "step"), STEPS, ids=lambda one: getattr(one, "__name__", one))
async def test_a_run_that_ends_at_any_step_loses_nothing(
    db, run, bring_back, monkeypatch, owner, step
):
    """Rows are in a table or in the archive at every moment, the next run goes on, and all comes back the same."""
    await add_past_month(db, "conversation_history", OLD)
    await talk(db, OLD, 5)
    for _ in range(4):
        await say(db, uuid4(), middle(OLD))
    before = await fingerprint(db, "conversation_history")

    class EndError(Exception):
        pass

    def end(*arguments, **named):
        raise EndError

    with monkeypatch.context() as broken:
        broken.setattr(owner, step, end)
        with pytest.raises((EndError, WorkerError)):
            await run()
    done = (await run())["conversation_history"]
    assert done.months == [str(OLD)]
    assert await db.fetchval("SELECT count(*) FROM conversation_history") == 0
    assert not await db.fetch("SELECT FROM pg_class WHERE relname ~ '_retiring'")
    await bring_back()
    assert await fingerprint(db, "conversation_history") == before


async def test_a_process_that_is_killed_before_the_drop_leaves_both(
    db, database_url, bring_back, tmp_path
):
    """SIGKILL while the drop waits for a reader: the month is a table of its own and in the archive; then it goes on."""
    name = await add_past_month(db, "conversation_history", OLD)
    await talk(db, OLD, 5)
    before = await fingerprint(db, "conversation_history")
    places = {"DATABASE_URL": database_url, "WORKER_ARCHIVE": str(tmp_path)}
    manifest = tmp_path / "conversation_history" / f"{name}.jsonl.gz.json"
    async with db.transaction():
        await db.execute("LOCK TABLE agent_sessions IN ACCESS SHARE MODE")  # as a report does
        async with running_command("maintain", **places) as maintain:
            await until(manifest.exists)
            maintain.process.kill()
            await maintain.ended()
        assert await db.fetchval(f"SELECT count(*) FROM {name}_retiring") == 5
        with pytest.raises(Misconfigured, match="run it again first"):
            await bring_back()
    archived = manifest.with_suffix("").read_bytes()
    done = await asyncio.to_thread(command, "maintain", "--json", **places)
    [retired] = [one for one in done.json["retired"] if one["table"] == "conversation_history"]
    assert (retired["months"], retired["rows"]) == ([str(OLD)], 5)
    assert await db.fetchval("SELECT to_regclass($1)", f"{name}_retiring") is None
    assert manifest.with_suffix("").read_bytes() == archived
    listed = await asyncio.to_thread(command, "archive", "list", "--json", **places)
    assert [(one["month"], one["part"], one["rows"]) for one in listed.json] == [(str(OLD), 1, 5)]
    restored = await asyncio.to_thread(
        command, "archive", "restore", "conversation_history", str(OLD), **places
    )
    assert restored.code == 0
    assert "5 rows of conversation_history" in restored.out
    assert await fingerprint(db, "conversation_history") == before


async def test_an_archive_that_was_not_written_well_drops_nothing(db, run, monkeypatch):
    """What is read back differs: the rows stay where they are, and a sentence says which file."""
    await decide(db, middle(months_ago(9)))
    write = archive_files.PartWriter.write

    def flip(self, lines):
        write(self, [line.replace("plan", "plot") for line in lines])
        self._hash.update(b"x")

    with monkeypatch.context() as broken:
        broken.setattr(archive_files.PartWriter, "write", flip)
        with pytest.raises(WorkerError, match="is not what was archived"):
            await run()
    assert await db.fetchval("SELECT count(*) FROM agent_decisions") == 1


async def test_a_damaged_archive_is_found_and_not_restored(db, run, bring_back, tmp_path):
    """Cut, altered or exchanged: `worker archive verify` names it and exits 1, and a restore brings nothing back."""
    await add_past_month(db, "conversation_history", OLD)
    await talk(db, OLD, 3)
    await run()
    name = f"{OLD.partition_of('conversation_history')}.jsonl.gz"
    file = tmp_path / "conversation_history" / name
    whole = file.read_bytes()

    async def verify():
        return await asyncio.to_thread(command, "archive", "verify", WORKER_ARCHIVE=str(tmp_path))

    assert (await verify()).code == 0
    for damaged in (whole[:-12], whole[:60], b"", whole + whole):
        file.write_bytes(damaged)
        done = await verify()
        assert (done.code, name in done.out) == (1, True)
        with pytest.raises(WorkerError):
            await bring_back()
    assert await db.fetchval("SELECT count(*) FROM conversation_history") == 0
    file.unlink()
    assert (await verify()).code == 1


async def test_another_schema_is_refused(db, run, bring_back):
    """By the columns, named, with the migration that it came from; nothing comes back."""
    await decide(db, middle(months_ago(9)))
    await run()
    await db.execute("ALTER TABLE agent_decisions ADD COLUMN colour TEXT")
    with pytest.raises(WorkerError, match=r'migration 0\d+.*"colour": \[null, "text"\]'):
        await bring_back("agent_decisions", months_ago(9))
    assert await db.fetchval("SELECT count(*) FROM agent_decisions") == 0


async def test_the_archive_ends_when_its_time_has_passed(db, run, tmp_path):
    """A month that is older than the archive's age is archived, and then deleted from it; the others stay."""
    for month in (months_ago(20), OLD):
        await add_past_month(db, "conversation_history", month)
        await talk(db, month, 1)
    would = (await run("conversation_history=90d/3y"))["conversation_history"]
    assert (len(would.parts), would.deleted) == (2, [])
    told = (await run(dry_run=True))["conversation_history"].deleted
    assert told == [f"{months_ago(20).partition_of('conversation_history')}.jsonl.gz"]
    assert len(files(tmp_path)) == 4
    assert (await run())["conversation_history"].deleted == told
    assert [part.month for part in Archive(str(tmp_path)).parts()] == [str(OLD)]


async def measure(db, days_ago, value, kind="accuracy"):
    moment = datetime.now(UTC).replace(hour=12, minute=0) - timedelta(days=days_ago)
    await db.execute(
        "INSERT INTO trust_metrics (metric_id, session_id, metric_type, metric_value, event_id, created_at, source,"
        " content_digest) VALUES ($1, $2, $3, $4, $1, $5, '/a', decode(repeat('00', 16), 'hex'))",
        uuid4(), SESSION, kind, value, moment,
    )  # fmt: skip


async def test_measurements_become_a_row_a_day(db, run):
    """Count, bounds, total and the last value; late ones join their day; the view still knows the latest value."""
    for value in (10, 20, 60):
        await measure(db, 40, value)
    await measure(db, 41, 7)
    await measure(db, 3, 50)
    await measure(db, 45, 2, "complexity")
    seen = "SELECT accuracy, complexity FROM session_trust WHERE session_id = $1"
    before = await db.fetchrow(seen, SESSION)
    assert (await run())["trust_metrics"].rows == 5
    assert await db.fetchrow(seen, SESSION) == before
    await measure(db, 40, 5)
    assert (await run())["trust_metrics"].rows == 1
    assert (await run())["trust_metrics"].rows == 0
    days = await db.fetch(
        "SELECT measurements, minimum, maximum, total FROM trust_metrics_daily"
        " WHERE metric_type = 'accuracy' ORDER BY day"
    )
    assert [tuple(map(int, row)) for row in days] == [(1, 7, 7, 7), (4, 5, 60, 95)]
    assert await db.fetchval("SELECT count(*) FROM trust_metrics") == 1


async def test_what_was_erased_stays_erased(db, run, bring_back):
    """A session that was erased since takes its archived messages along: they do not come back."""
    await add_past_month(db, "conversation_history", OLD)
    other = UUID(int=6)
    await make_session(db, other)
    await say(db, key_in(OLD), middle(OLD), other)
    single, stays = await talk(db, OLD, 2)
    await run()
    await db.execute("DELETE FROM agent_sessions WHERE session_id = $1", other)
    await db.execute(
        "INSERT INTO lifecycle_events (event_id, time, entity_type, entity_id, type, data, source, content_digest)"
        " VALUES ($1, now(), 'conversation_history', $2, 'record.erased', '{}', '/erasure', decode(repeat('00', 16), 'hex'))",
        uuid7(), str(single),
    )  # fmt: skip
    done = await bring_back()
    assert (done.rows, done.erased) == (1, 2)
    assert [key for (key,) in await db.fetch("SELECT message_id FROM conversation_history")] == [stays]  # fmt: skip


async def test_what_came_since_stays_as_it_is(db, run, bring_back):
    """A message that was published again, and one with other content: both stay, and the difference is told."""
    await add_past_month(db, "conversation_history", OLD)
    same, other, _ = await talk(db, OLD, 3)
    await run()
    await say(db, same, middle(OLD))
    await say(db, other, middle(OLD), content="goodbye")
    await db.execute(
        "UPDATE conversation_history SET content_digest = sha256('x')::bytea WHERE false"
    )
    await db.execute(
        "UPDATE conversation_history SET content_digest = decode(repeat('11', 16), 'hex') WHERE message_id = $1",
        other,
    )
    done = await bring_back()
    assert (done.rows, done.present, done.differing) == (1, 2, 1)
    contents = await db.fetch("SELECT content FROM conversation_history ORDER BY 1")
    assert [text for (text,) in contents] == ["goodbye", "hello", "hello"]


@pytest.mark.parametrize(
    ("table", "month", "said"),
    [
        ("tasks", "2026-01", "there is no table 'tasks' that is archived"),
        ("conversation_history", "2026-13", "no month"),
        ("conversation_history", "2020-01", "worker archive list"),
    ],
)
async def test_a_restore_of_nothing_says_what_there_is(database, tmp_path, table, month, said):
    """A wrong table, a wrong month, one that was never archived."""
    with pytest.raises(Misconfigured, match=said):
        await restore(database, Archive(str(tmp_path)), table, month)


async def test_two_at_once_retire_each_row_once(db, run, bring_back):
    """One waits for the other, and finds nothing left to do."""
    await add_past_month(db, "conversation_history", OLD)
    await talk(db, OLD, 5)
    before = await fingerprint(db, "conversation_history")
    both = await asyncio.gather(run(), run())
    assert sorted(one["conversation_history"].rows for one in both) == [0, 5]
    await bring_back()
    assert await fingerprint(db, "conversation_history") == before


async def test_beside_a_running_worker_nothing_is_refused_or_lost(
    db, run, bring_back, settings, monkeypatch
):
    """A worker stores messages of sessions, some of the month that leaves, while it leaves and comes back."""
    monkeypatch.setattr(partitions, "LOCK_TIMEOUT", "60s")
    await add_past_month(db, "conversation_history", OLD)
    await talk(db, OLD, 20)
    sent = []

    def message(month):
        key = key_in(month)
        sent.append(key)
        return ConversationMessageRecorded(
            message_id=key, session_id=uuid7(), role="user", content="x"
        ).event(source="/agents/a", time=middle(month))

    async def publish(agent, stop):
        while not stop.is_set():
            await agent.publish(
                *(message(month) for month in (OLD, months_ago(0)) for _ in range(20))
            )

    stop = asyncio.Event()
    async with running_worker(settings), client(settings.broker) as agent:
        publishing = asyncio.create_task(publish(agent, stop))
        await run()
        await bring_back()
        stop.set()
        await publishing

        async def stored():
            found = await db.fetch("SELECT message_id FROM conversation_history")
            return {key for (key,) in found} >= set(sent)

        await until(stored)
    assert await db.fetchval("SELECT count(*) FROM dead_letters") == 0
    assert await db.fetchval("SELECT count(*) FROM conversation_history") == len(sent) + 20


async def test_a_message_of_a_retired_month_is_stored_again(db, run, settings):
    """The documented window: its row is the memory of a message, and the row has left."""
    await add_past_month(db, "conversation_history", OLD)
    event = ConversationMessageRecorded(
        message_id=key_in(OLD), session_id=SESSION, role="user", content="x"
    ).event(source="/agents/a", time=middle(OLD))
    count = "SELECT count(*) FROM conversation_history"
    async with running_worker(settings), client(settings.broker) as agent:
        outcomes = []
        for _ in range(2):
            await agent.publish(event, reply=True)
            outcomes.append((await agent.reply()).outcome)
        await run()
        assert await db.fetchval(count) == 0
        await agent.publish(event, reply=True)
        outcomes.append((await agent.reply()).outcome)
    assert outcomes == ["persisted", "duplicate", "persisted"]
    assert await db.fetchval(count) == 1
