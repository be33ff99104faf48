"""Publishes bodies as they are, with properties as they are, until the broker has confirmed them.

A repetition carries the same AMQP message id as the first try: where both arrived, it is one message for the worker.
"""

import asyncio
import contextlib
import random
from dataclasses import dataclass
from uuid import UUID

from contracts.client import EXCHANGE
from contracts.envelope import CONTENT_TYPE
from worker.broker.connection import BROKER_ERRORS, BrokerConnection, connect
from worker.broker.properties import pack
from worker.broker.publisher import Answer, ConfirmedPublisher
from worker.errors import Misconfigured, Unavailable
from worker.torture.hearing import REPLIES


@dataclass(frozen=True)
class Parcel:
    """One AMQP message: which messages of the ledger it holds, and how it travels."""

    keys: tuple[UUID, ...]
    routing_key: str
    body: bytes
    content_type: str = CONTENT_TYPE
    content_encoding: str | None = None
    asks: bool = True
    hostile: bytes | None = None
    """Flags and properties as raw bytes, instead of those that are packed here."""

    @property
    def properties(self) -> bytes:
        """Flags and properties for the content header; the first message's id is the AMQP message id."""
        if self.hostile is not None:
            return self.hostile
        name = str(self.keys[0])
        return pack(
            content_type=self.content_type,
            content_encoding=self.content_encoding,
            headers=None,
            correlation_id=name if self.asks else None,
            reply_to=REPLIES if self.asks else None,
            message_id=name,
        )


class RawPublisher:
    """Publishes parcels on one connection that it opens anew when it is lost."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: BrokerConnection | None = None
        self._publisher: ConfirmedPublisher | None = None
        self._opening = asyncio.Lock()

    async def publish(self, parcel: Parcel) -> None:
        """Returns when the broker has confirmed it, however often it takes."""
        while True:
            publisher = await self._open()
            answer = publisher.publish_packed(
                EXCHANGE, parcel.routing_key, parcel.properties, parcel.body
            )
            with contextlib.suppress(Unavailable):
                await publisher.drain()
            if await answer is Answer.ACCEPTED:
                return
            await asyncio.sleep(random.uniform(0.05, 0.3))  # noqa: S311 (jitter)

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()

    async def _open(self) -> ConfirmedPublisher:
        async with self._opening:
            while self._publisher is None or self._publisher.ended.is_set():
                await self.close()
                try:
                    self._connection = await connect(self._url, name=self._name)
                    self._publisher = await ConfirmedPublisher.open(self._connection)
                except (Unavailable, Misconfigured, *BROKER_ERRORS):
                    await asyncio.sleep(random.uniform(0.1, 0.5))  # noqa: S311 (jitter)
            return self._publisher
