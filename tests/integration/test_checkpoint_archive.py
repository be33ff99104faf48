"""A checkpoint is in its row and, where an archive is set, in a file of plain JSON: a run is restored from either."""

import asyncio
import gzip
import json

import pytest
from support.commands import command
from support.events import decoded
from support.tables import connected, rows

from contracts.identifiers import uuid7
from contracts.workflow_facts import CheckpointSaved
from worker.errors import Misconfigured, WorkerError
from worker.families import plan
from worker.operations import checkpoints
from worker.store.database import Database
from worker.store.persist import Persister
from worker.store.writer import Writer

SNAPSHOT = {"step": 2, "plan": ["load", "fit"], "text": "é\u2028", "number": 0.1}
REFERENCE = {"uri": "s3://archive/one", "sha256": "0" * 64, "size": 1}


@pytest.fixture
async def database(database_url):
    found = Database(database_url, name="test")
    yield found
    await found.close()


async def save(database, count=1, tenant="default", **data):
    """Store this many checkpoints; their ids."""
    ids = [uuid7() for _ in range(count)]
    given = {"context_snapshot": SNAPSHOT, "checkpoint_type": "manual", "run_id": uuid7()} | data
    events = [
        CheckpointSaved(checkpoint_id=key, session_id=uuid7(), **given).event(
            source="/agents/tester", tenant=tenant
        )
        for key in ids
    ]
    persister = Persister(database, Writer(plan()), "workflow", "agent.replies.*")
    await persister.persist(decoded(*events))
    return ids


async def test_row_and_copy_say_the_same(database, database_url, tmp_path):
    """Every column of the row is in the copy, the snapshot unchanged in both, and the row names the copy."""
    [key] = await save(database, tenant="acme", metadata={"team": "a"})
    assert await checkpoints.archive(database, tmp_path) == 1
    row = await checkpoints.read_row(database, key, "acme")
    copy = checkpoints.read_copy(tmp_path, key, "acme")
    path = row.columns.pop("archive_path")
    assert row == copy
    assert row.snapshot == copy.snapshot == SNAPSHOT
    file = tmp_path / path
    assert json.loads(gzip.decompress(file.read_bytes()))["context_snapshot"] == SNAPSHOT
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


async def test_only_what_has_no_copy_is_copied(database, tmp_path):
    """Twice, by two at once, more than a transaction holds: each once. A reference alone has nothing to copy."""
    await save(database, 2 * checkpoints.AT_ONCE + 1)
    await save(database, context_snapshot=None, context_snapshot_ref=REFERENCE)
    assert await checkpoints.waiting(database) == 2 * checkpoints.AT_ONCE + 1
    done = await asyncio.gather(*(checkpoints.archive(database, tmp_path) for _ in range(2)))
    assert sum(done) == 2 * checkpoints.AT_ONCE + 1
    assert await checkpoints.archive(database, tmp_path) == await checkpoints.waiting(database) == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == sum(done)


async def test_a_row_never_names_a_copy_that_is_not_there(database, database_url, tmp_path):
    """Where the file cannot be written, nothing is named; what a crash left behind is written again, alike."""
    [key] = await save(database)
    (tmp_path / "default").write_text("in the way")
    with pytest.raises(Misconfigured, match="WORKER_CHECKPOINT_ARCHIVE"):
        await checkpoints.archive(database, tmp_path)
    assert await rows(database_url, "SELECT archive_path FROM checkpoints") == [
        {"archive_path": None}
    ]
    (tmp_path / "default").unlink()
    await checkpoints.archive(database, tmp_path)
    file = tmp_path / checkpoints.copy_path(key, "default")
    first = file.read_bytes()
    async with connected(database_url) as connection:  # as if the commit had not come about
        await connection.execute("UPDATE checkpoints SET archive_path = NULL")
    assert await checkpoints.archive(database, tmp_path) == 1
    assert file.read_bytes() == first
    assert [path.name for path in file.parent.iterdir()] == [file.name]


async def test_a_copy_is_read_without_trusting_it(database, tmp_path):
    """Broken, of another checkpoint, too large, or of a tenant that is a path: refused in a sentence."""
    one, other = await save(database, 2)
    await checkpoints.archive(database, tmp_path)
    file = tmp_path / checkpoints.copy_path(one, "default")
    whole = file.read_bytes()
    another = (tmp_path / checkpoints.copy_path(other, "default")).read_bytes()
    bomb = gzip.compress(b" " * (checkpoints.MAX_COPY_BYTES + 1))
    for content in (whole[:-9], whole[:40], b"\x80\x04.", another, bomb, gzip.compress(b"[]")):
        file.write_bytes(content)
        with pytest.raises(WorkerError, match=str(one)):
            checkpoints.read_copy(tmp_path, one, "default")
    with pytest.raises(WorkerError, match="no tenant"):
        checkpoints.read_copy(tmp_path, one, "../default")
    assert checkpoints.read_copy(tmp_path, uuid7(), "default") is None


async def test_a_checkpoint_is_shown_from_either_place(database, database_url, tmp_path):
    """The commands: copy, show the row, show the copy without a database, and say what is missing."""
    [key] = await save(database)
    [reference] = await save(database, context_snapshot=None, context_snapshot_ref=REFERENCE)
    here = {"DATABASE_URL": database_url}
    archive = {"WORKER_CHECKPOINT_ARCHIVE": str(tmp_path)}

    async def run(*arguments, **environment):
        return await asyncio.to_thread(command, "checkpoints", *arguments, **environment)

    planned = await run("archive", "--dry-run", "--json", **here, **archive)
    assert planned.json == {"dry_run": True, "copied": 1}
    done = await asyncio.to_thread(command, "maintain", "--json", **here, **archive)
    assert done.json["checkpoints_copied"] == 1
    assert "0 checkpoints were copied" in (await run("archive", **here, **archive)).out
    assert (await run("show", str(key), "--json", **here)).json["context_snapshot"] == SNAPSHOT
    assert "manual" in (await run("show", str(key), **here)).out
    copied = await run("show", str(key), "--from-archive", "--snapshot", **archive)
    assert copied.json == SNAPSHOT
    for arguments, environment, code, said in (
        (["show", str(uuid7())], here, 1, "the database holds no checkpoint"),
        (["show", str(key), "--tenant", "acme"], here, 1, "of the tenant acme"),
        (["show", str(reference), "--from-archive"], archive, 1, "the archive holds no checkpoint"),
        (["show", str(reference), "--snapshot"], here, 1, "its snapshot lies elsewhere: s3://"),
        (["archive"], here, 2, "WORKER_CHECKPOINT_ARCHIVE has to name the folder"),
        (["show", str(key), "--from-archive"], {}, 2, "WORKER_CHECKPOINT_ARCHIVE"),
        (["show", "seven"], here, 2, "valid UUID"),
    ):
        done = await run(*arguments, **environment)
        assert (done.code, said in done.err) == (code, True), done.err
