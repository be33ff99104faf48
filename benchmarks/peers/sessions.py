"""The database side of the SQLAlchemy peers: a session and a transaction a message."""

from sqlalchemy import Table
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from benchmarks.peers import job
from worker.message import Message

engine = create_async_engine(job.DATABASE_URL or "postgresql+asyncpg://", pool_size=job.POOL)
sessions = async_sessionmaker(engine, expire_on_commit=False)


async def persist(message: Message) -> None:
    """Store one message; a repeated one changes nothing."""
    async with sessions() as session, session.begin():
        if job.is_fact(message):
            for table, key, value in job.parents(message):
                await _name(session, table, key, value)
            await session.execute(
                insert(job.table(message)).values(job.row(message)).on_conflict_do_nothing()
            )
            return
        inserted = await session.execute(
            insert(job.table(message)).values(job.row(message)).on_conflict_do_nothing()
        )
        if inserted.rowcount:  # type: ignore[attr-defined] # a cursor's result has it
            raw = await (await session.connection()).get_raw_connection()
            await job.fold(raw.driver_connection, message)


async def _name(session: AsyncSession, table: Table, key: str, value: object) -> None:
    """Make a parent that may be yet to come."""
    await session.execute(
        insert(table).values({key: value, "placeholder": True}).on_conflict_do_nothing()
    )
