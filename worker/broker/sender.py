"""Hands messages to the broker and stays with each until its fate is known, over lost channels and connections.

Owns the window of what is under way, reconnection and repetition. Promises one fate for every message; a message that
makes the broker close the channel is found by sending those under suspicion one by one, so that it takes no other with
it; Unavailable where the broker stays away or silent for `patience` seconds. What has no fate then may have arrived:
sending it again is for the worker a duplicate.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from types import TracebackType
from typing import Self

from worker.broker.connection import BrokerConnection, connect
from worker.broker.outgoing import REPLIES, Fate, OnReply, Outgoing, SendingChannel
from worker.broker.publisher import Answer
from worker.errors import Misconfigured, Unavailable

_MOST_REFUSALS = 7  # half a minute: a queue of a cluster takes nothing while it elects a leader
_MOST_FRUITLESS_CONNECTIONS = 5
_DRAIN_EVERY = 64


class Sender:
    """Sends many messages; `on_fate` hears of each one's end.

    With `on_reply` every message asks the worker for a direct reply, and ends when the caller says so (`conclude`), or
    when the broker does not take it.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        on_fate: Callable[[Outgoing], None],
        on_reply: OnReply | None = None,
        window: int = 5_000,
        window_bytes: int = 32 * 1024 * 1024,
        patience: float = 30,
        user_id: str | None = None,
    ) -> None:
        self._url = url
        self._user_id = user_id
        self._name = name
        self._on_fate = on_fate
        self._on_reply = on_reply
        self._window = window
        self._window_bytes = window_bytes
        self._patience = patience
        self._connection: BrokerConnection | None = None
        self._publisher: SendingChannel | None = None
        self._channels = 0
        self._numbers = 0
        self._open: dict[int, Outgoing] = {}
        self._bytes = 0
        self._refused: list[Outgoing] = []
        self._fruitless = 0
        self._wake = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Connect. Raises Unavailable or Misconfigured."""
        await self._connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._connection is not None:
            await self._connection.close()

    @property
    def connection(self) -> BrokerConnection:
        """The present connection."""
        assert self._connection is not None  # noqa: S101 (in the block, there is one)
        return self._connection

    @property
    def unfinished(self) -> list[Outgoing]:
        """What has no fate yet."""
        return list(self._open.values())

    async def send(self, item: Outgoing) -> bool:
        """Send as soon as there is room. False, with nothing sent, where no answer has made room for `patience` seconds."""
        while self._channel.ended.is_set() or self._refused or not self._has_room():
            if not await self._step():
                return False
        self._numbers += 1
        item.number = self._numbers
        self._open[item.number] = item
        self._bytes += len(item.body)
        self._transmit(item)
        if self._numbers % _DRAIN_EVERY == 0:
            await self._drain()
        return True

    async def finish(self) -> bool:
        """Wait until everything has its fate. False where no answer has come for `patience` seconds."""
        await self._drain()
        while self._open:
            if not await self._step():
                return False
        return True

    def conclude(self, item: Outgoing) -> None:
        """All answers to this message are there."""
        self._settle(item, Fate.ACCEPTED)

    # --- one message ---

    @property
    def _channel(self) -> SendingChannel:
        assert self._publisher is not None  # noqa: S101 (in the block, there is one)
        return self._publisher

    def _has_room(self) -> bool:
        return not self._open or (
            len(self._open) < self._window and self._bytes < self._window_bytes
        )

    def _transmit(self, item: Outgoing) -> asyncio.Future[Answer] | None:
        item.channel = self._channels
        asking = self._on_reply is not None
        try:
            answer = self._channel.publish(
                item.exchange,
                item.routing_key,
                item.body,
                content_type=item.content_type,
                content_encoding=item.content_encoding,
                correlation_id=str(item.number) if asking else None,
                reply_to=REPLIES if asking else None,
                headers=item.headers,
                user_id=self._user_id,
                mandatory=True,
            )
        except (ValueError, TypeError) as error:
            self._settle(item, Fate.REFUSED, f"it cannot be sent: {error}")
            return None
        answer.add_done_callback(lambda done: self._answered(item, done.result()))
        return answer

    def _answered(self, item: Outgoing, answer: Answer) -> None:
        self._wake.set()
        match answer:
            case Answer.ACCEPTED:
                self._fruitless = 0
                item.accepted = True
                if self._on_reply is None:
                    self._settle(item, Fate.ACCEPTED)
            case Answer.RETURNED:
                self._settle(item, Fate.RETURNED, "no queue took it")
            case Answer.REFUSED:
                item.refusals += 1
                self._refused.append(item)
            case Answer.LOST:
                pass  # the end of the channel is mended for all at once

    def _settle(self, item: Outgoing, fate: Fate, why: str = "") -> None:
        if self._open.pop(item.number, None) is not None:
            self._bytes -= len(item.body)
            item.fate = fate
            item.why = why
            self._on_fate(item)
        self._wake.set()

    def _replied(self, number: int, body: bytes) -> None:
        self._wake.set()
        item = self._open.get(number)
        if self._on_reply is not None and item is not None:
            self._on_reply(item, body)

    # --- all of them ---

    async def _step(self) -> bool:
        """Wait until something has changed, and mend what is broken; False where nothing came for too long."""
        if self._channel.ended.is_set():
            await self._mend()
        elif self._refused:
            await self._repeat_refused()
        else:
            self._wake.clear()
            try:
                async with asyncio.timeout(self._patience):
                    await self._wake.wait()
            except TimeoutError:
                if any(not item.accepted for item in self._open.values()):
                    raise self._silent() from None
                return False
        return True

    async def _drain(self) -> None:
        """Let the socket take what was written, and the answers be read."""
        try:
            async with asyncio.timeout(self._patience):
                await self._channel.drain()
        except TimeoutError:
            raise self._silent() from None
        except Unavailable:
            pass  # the end of the channel shows in the next step
        await asyncio.sleep(0)

    def _silent(self) -> Unavailable:
        return Unavailable(
            f"RabbitMQ has confirmed nothing for {self._patience:g} s: is it out of memory or disk space?"
        )

    async def _repeat_refused(self) -> None:
        """Send what the broker refused once more, after a pause; not for ever."""
        refused, self._refused = self._refused, []
        await asyncio.sleep(0.1 * 2 ** min(item.refusals for item in refused))
        for item in refused:
            if item.refusals > _MOST_REFUSALS:
                self._settle(item, Fate.REFUSED, "the broker refuses it (nack): is its queue full?")
            elif item.number in self._open:
                self._transmit(item)

    async def _mend(self) -> None:
        """A new channel, or connection, and on it all that has no fate yet."""
        await asyncio.sleep(0)  # what was answered before the end is counted first
        try:
            await self._mend_channel()
        except Unavailable:
            await self._reconnect()
        for item in self.unfinished:
            if item.channel != self._channels:
                self._transmit(item)

    async def _mend_channel(self) -> None:
        """The broker closed the channel over something that was sent: send each of these alone, to find it."""
        await self._channel.end_reason()
        await self._open_channel()
        for item in [item for item in self.unfinished if not item.accepted]:
            answer = self._transmit(item)
            if answer is None:
                continue
            try:
                async with asyncio.timeout(self._patience):
                    lost = await answer is Answer.LOST
            except TimeoutError:
                raise self._silent() from None
            if lost:
                why = await self._channel.end_reason()
                await self._open_channel()
                self._settle(item, Fate.REFUSED, f"the broker refuses it: {why}")

    async def _reconnect(self) -> None:
        self._fruitless += 1
        if self._fruitless > _MOST_FRUITLESS_CONNECTIONS:
            raise Unavailable("RabbitMQ breaks the connection again and again before it confirms")
        await self.connection.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        pause = 0.1
        while True:
            try:
                return await self._connect()
            except (Unavailable, Misconfigured):
                # It worked before: a refusal now is a broker that is still starting.
                if loop.time() + pause > deadline:
                    raise
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 (jitter)
            pause = min(2 * pause, 3)

    async def _connect(self) -> None:
        self._connection = await connect(self._url, name=self._name)
        try:
            await self._open_channel()
        except BaseException:
            with contextlib.suppress(Unavailable):
                await self._connection.close()
            raise

    async def _open_channel(self) -> None:
        channel = await SendingChannel.open(self.connection)
        channel.on_end = self._wake.set
        channel.on_reply = self._replied
        if self._on_reply is not None:
            await channel.ask_for_replies()
        self._channels += 1
        self._publisher = channel
