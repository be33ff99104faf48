"""The archived copies of checkpoints: one compressed JSON file each, beside its row; a run is restored from either.

Owns where a copy lies and what is in it. The row comes first, by message; the copy is made from the committed row and
only then named in it (`archive_path`). Promises that a row which names a copy has one that is on the disk whole,
whatever dies in between, and that a copy is plain JSON: nothing in it runs when it is read.
"""

import asyncio
import gzip
import json
import os
import re
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from worker.errors import Misconfigured, WorkerError
from worker.store.database import Database

SETTING = "WORKER_CHECKPOINT_ARCHIVE"
AT_ONCE = 8
"""Checkpoints in one transaction; each may be as large as a message."""

MAX_COPY_BYTES = 64 * 1024 * 1024
"""Largest copy that is read, decompressed: no snapshot that came in a message is larger."""

_TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_WAITING = "archive_path IS NULL AND context_snapshot IS NOT NULL"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was stored, from its row or from its copy."""

    columns: dict[str, Any]

    @property
    def snapshot(self) -> Any:
        """All that the run needs to go on; None where the row holds a reference only."""
        return self.columns.get("context_snapshot")


def copy_path(checkpoint: UUID, tenant: str) -> PurePosixPath:
    """Where a checkpoint's copy lies, relative to the archive: a folder holds the keys of three days."""
    if not _TENANT.fullmatch(tenant):
        raise WorkerError(f"{tenant!r} is no tenant: letters, digits, - and _, at most 64")
    return PurePosixPath(tenant, checkpoint.hex[:5], f"{checkpoint}.json.gz")


def archive_folder(setting: str) -> Path:
    """The folder that the setting names. Raises Misconfigured where there is none."""
    folder = Path(setting) if setting else None
    if folder is None or not folder.is_dir():
        raise Misconfigured(f"{SETTING} has to name the folder of the archived checkpoints")
    return folder


async def waiting(database: Database) -> int:
    """How many checkpoints have no copy yet."""
    async with database.transaction() as connection:
        count = await connection.fetchval(f"SELECT count(*) FROM checkpoints WHERE {_WAITING}")  # noqa: S608 (a constant)
    return int(count)


async def archive(database: Database, folder: Path) -> int:
    """Copy every checkpoint that has no copy; how many. Safe to run twice and by two at once."""
    done = 0
    while copied := await _archive_some(database, folder):
        done += copied
    return done


async def _archive_some(database: Database, folder: Path) -> int:
    """Copy a few inside one transaction: a crash before its end leaves files that the next try writes again, alike."""
    async with database.transaction() as connection:
        rows = await connection.fetch(
            "SELECT id, tenant_id, (to_jsonb(c) - 'archive_path')::text AS content FROM checkpoints c"  # noqa: S608 (a constant)
            f" WHERE {_WAITING} ORDER BY id LIMIT {AT_ONCE} FOR UPDATE SKIP LOCKED"
        )
        paths = [copy_path(row["id"], row["tenant_id"]) for row in rows]
        for row, path in zip(rows, paths, strict=True):
            await asyncio.to_thread(_write, folder, path, row["content"].encode())
        await _name_copies(connection, rows, paths)
    return len(rows)


async def _name_copies(
    connection: asyncpg.Connection, rows: list[asyncpg.Record], paths: list[PurePosixPath]
) -> None:
    await connection.execute(
        "UPDATE checkpoints c SET archive_path = u.path"
        " FROM unnest($1::uuid[], $2::text[], $3::text[]) AS u(id, tenant_id, path)"
        " WHERE c.id = u.id AND c.tenant_id = u.tenant_id",
        [row["id"] for row in rows],
        [row["tenant_id"] for row in rows],
        [str(path) for path in paths],
    )


def _write(folder: Path, path: PurePosixPath, content: bytes) -> None:
    """Write a copy whole or not at all, to the disk and not only to its cache, for this user's eyes."""
    place = folder / path
    unfinished = place.with_name(f".{place.name}.{uuid4().hex}")
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(
            os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
        ) as file:
            file.write(gzip.compress(content, mtime=0))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(place)
        for parent in (place.parent, place.parent.parent, folder):
            _sync_folder(parent)
    except OSError as error:
        raise Misconfigured(
            f"cannot write the checkpoint {place}: {error.strerror}; {SETTING} has to name a folder with room in it"
            " that this user may write"
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def read_row(database: Database, checkpoint: UUID, tenant: str) -> Checkpoint | None:
    """A checkpoint from its row; None where there is none."""
    async with database.transaction() as connection:
        text = await connection.fetchval(
            "SELECT to_jsonb(c)::text FROM checkpoints c WHERE id = $1 AND tenant_id = $2",
            checkpoint,
            tenant,
        )
    return Checkpoint(json.loads(text)) if text else None


def read_copy(folder: Path, checkpoint: UUID, tenant: str) -> Checkpoint | None:
    """A checkpoint from its copy, without the database; None where there is none. Raises WorkerError for a broken one."""
    place = folder / copy_path(checkpoint, tenant)
    try:
        with gzip.open(place) as file:
            content = file.read(MAX_COPY_BYTES + 1)
        columns = json.loads(content) if len(content) <= MAX_COPY_BYTES else None
    except FileNotFoundError:
        return None
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise WorkerError(f"the copy {place} cannot be read: {error}") from error
    wanted = (str(checkpoint), tenant)
    if not isinstance(columns, dict) or (columns.get("id"), columns.get("tenant_id")) != wanted:
        raise WorkerError(f"the copy {place} does not hold the checkpoint of its name")
    return Checkpoint(columns)
