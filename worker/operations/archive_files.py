"""The archive of rows that were retired: compressed JSON lines beside a manifest, in a folder outside of the database.

Owns what lies in the folder: `<table>/<table>_y2026m01.jsonl.gz`, a row a line; rows that came later are a further part,
`….2.jsonl.gz`. Promises that a part with a manifest is on the disk whole and was read back; what has no manifest is a
remnant of a run that ended early, whose rows are still in the database.
"""

import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from worker.errors import Misconfigured, WorkerError
from worker.store.partitions import Month

SETTING = "WORKER_ARCHIVE"
FORMAT = 1
_MONTH = re.compile(r"(\d{4})-(\d{2})")
_UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Part:
    """What the manifest says of one file."""

    table: str
    month: str
    """Of the rows, such as 2026-01."""
    part: int
    rows: int
    sha256: str
    """Of the lines, decompressed."""
    columns: dict[str, str]
    """Each column that the table had, with its type."""
    revision: str
    """The newest migration that was applied."""
    archived_at: str
    held_until: str | None = None
    """A restored month is not retired again before this."""
    format: int = FORMAT

    @property
    def file(self) -> str:
        """The name of the file within the folder of its table."""
        further = f".{self.part}" if self.part > 1 else ""
        return f"{parse_month(self.month).partition_of(self.table)}{further}.jsonl.gz"

    def held(self, now: datetime) -> bool:
        """Whether its rows were restored and have to stay."""
        return self.held_until is not None and datetime.fromisoformat(self.held_until) > now


def parse_month(text: str) -> Month:
    """A month that is written 2026-01. Raises Misconfigured for anything else."""
    found = _MONTH.fullmatch(text)
    if not found or not 1 <= int(found[2]) <= 12 or int(found[1]) < 1:  # noqa: PLR2004 (months of a year)
        raise Misconfigured(f"{text!r} is no month: write it like 2026-01")
    return Month(int(found[1]), int(found[2]))


class Archive:
    """The folder."""

    def __init__(self, setting: str) -> None:
        """Raises Misconfigured where the setting names no folder."""
        self.folder = Path(setting)
        if not setting or not self.folder.is_dir():
            raise Misconfigured(
                f"{SETTING}: {setting!r} is no folder that is there: make it, for the user that runs `worker maintain`"
            )

    def parts(self, table: str | None = None, month: Month | None = None) -> list[Part]:
        """Every part that has a manifest, by table and month, oldest first. Raises WorkerError for one that cannot be read."""
        pattern = f"{table or '*'}/*.jsonl.gz.json"
        found = [_read_manifest(path) for path in self.folder.glob(pattern)]
        chosen = [one for one in found if month is None or one.month == str(month)]
        return sorted(chosen, key=lambda one: (one.table, one.month, one.part))

    def path(self, part: Part) -> Path:
        """Where the file of a part lies."""
        return self.folder / part.table / part.file

    def size(self, part: Part) -> int | None:
        """The bytes of a part's file; None where it is gone."""
        with suppress(FileNotFoundError):
            return self.path(part).stat().st_size
        return None

    def lines(self, part: Part) -> Iterator[bytes]:
        """The rows of a part. Raises WorkerError, at the latest after the last, where they are not what was archived."""
        yield from _lines(self.path(part), part.rows, part.sha256)

    def verify(self, part: Part) -> str | None:
        """What is wrong with a part; None where it is what was archived."""
        try:
            for _ in self.lines(part):
                pass
        except WorkerError as error:
            return str(error)
        return None

    def hold(self, part: Part, until: datetime) -> None:
        """Keep a month that is restored from being retired again before this."""
        held = replace(part, held_until=until.astimezone(UTC).isoformat())
        with _explained(self.folder):
            _write_manifest(self.path(part), held)

    def delete(self, part: Part) -> None:
        """Delete a part: its file first, so that no manifest is ever missing of a file that is needed."""
        path = self.path(part)
        with _explained(self.folder):
            path.unlink(missing_ok=True)
            _manifest(path).unlink(missing_ok=True)
            _sync_folder(path.parent)


class PartWriter:
    """Writes one part: lines as they come, then all or nothing."""

    def __init__(self, archive: Archive, table: str, month: Month) -> None:
        self._archive, self._table, self._month = archive, table, month
        self._folder = archive.folder / table
        self._hash, self.rows = hashlib.sha256(), 0
        with _explained(archive.folder):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(archive.folder)
            for remnant in self._folder.glob(f".*.{_UNFINISHED}"):
                remnant.unlink(missing_ok=True)
            self._path = self._folder / f".{table}.{uuid4().hex}.{_UNFINISHED}"
            self._file = _create(self._path)
            self._gzip = gzip.GzipFile("", "wb", 6, self._file, mtime=0)

    def write(self, lines: Iterable[str]) -> None:
        """Add rows, each JSON without a line break in it."""
        text = b"".join(line.encode() + b"\n" for line in lines)
        with _explained(self._archive.folder):
            self._gzip.write(text)
        self._hash.update(text)
        self.rows += text.count(b"\n")

    def finish(self, columns: dict[str, str], revision: str) -> Part:
        """Put the part on the disk, read it back, and name it; one with the same rows that is there already serves as well."""
        with _explained(self._archive.folder):
            self._gzip.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            sha256 = self._hash.hexdigest()
            for _ in _lines(self._path, self.rows, sha256):
                pass
            there = self._archive.parts(self._table, self._month)
            for one in there:
                same = (one.rows, one.sha256, one.columns) == (self.rows, sha256, columns)
                if same and self._archive.verify(one) is None:
                    self.discard()
                    return one
            number = max((one.part for one in there), default=0) + 1
            now = datetime.now(UTC).isoformat(timespec="seconds")
            part = Part(
                self._table, str(self._month), number, self.rows, sha256, columns, revision, now
            )
            place = self._archive.path(part)
            self._path.replace(place)
            _sync_folder(self._folder)
            _write_manifest(place, part)
        return part

    def discard(self) -> None:
        """Leave nothing behind of a part that was not finished; after `finish` this does nothing."""
        with suppress(OSError):
            self._gzip.close()
            self._file.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def _lines(path: Path, rows: int, sha256: str) -> Iterator[bytes]:
    seen, digest = 0, hashlib.sha256()
    try:
        with gzip.open(path) as file:
            for line in file:
                digest.update(line)
                seen += 1
                yield line
    except (OSError, EOFError, zlib.error) as error:
        raise WorkerError(f"the archive {path} cannot be read: {error}") from error
    if (seen, digest.hexdigest()) != (rows, sha256):
        raise WorkerError(
            f"the archive {path} is not what was archived: {seen:,} rows where {rows:,} were written, or others"
        )


def _manifest(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_manifest(path: Path) -> Part:
    try:
        part = Part(**json.loads(path.read_text(encoding="utf-8")))
        fits = part.format == FORMAT and _manifest(path.parent / part.file) == path
    except (OSError, ValueError, TypeError, Misconfigured) as error:
        raise WorkerError(f"the manifest {path} cannot be read: {error}") from error
    if not fits:
        raise WorkerError(f"the manifest {path} is of format {part.format}, or of another file")
    return part


def _write_manifest(path: Path, part: Part) -> None:
    manifest = _manifest(path)
    unfinished = manifest.with_name(f".{manifest.name}.{uuid4().hex}.{_UNFINISHED}")
    with _create(unfinished) as file:
        file.write(json.dumps(asdict(part), indent=2).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(manifest)
    _sync_folder(manifest.parent)


def _create(path: Path) -> Any:
    """A new file that this user alone can read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Say what to do where the disk refuses."""
    try:
        yield
    except OSError as error:
        raise Misconfigured(
            f"{SETTING}: {folder} cannot be written ({error.strerror}): it has to be a folder with room in it"
            " that this user may write"
        ) from error
