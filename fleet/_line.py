"""The line from a coordinator to a host's agent: through the store, which both reach anyway.

A command is a key that its host watches, and is there as long as who asked is; the answer is
another one. No host has to listen on a network for it, and who may command is who may write.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from secrets import token_hex
from typing import Final, TypeAlias

from anyio import CancelScope, create_task_group, move_on_after, sleep
from attrs import define, field
from msgspec import msgpack

from ioasid.actors import VmExport
from ioasid.core import Done, IoasidError, Refused, refusal_of
from ioasid.fleet._agent import Agent
from ioasid.fleet._errors import (
    HistoryLost,
    HostUnreachable,
    RecordTooLarge,
    StoreUnavailable,
    error_of,
)
from ioasid.fleet._hosts import host_key
from ioasid.fleet._protocol import Command
from ioasid.fleet._store import Lease, Store, decoded

__all__ = ["StoreLine", "serving_agent"]

logger = logging.getLogger("ioasid.fleet")

LEASE: Final = 10
"""Seconds after which what a process asked or answered that says nothing any more is gone."""
AGAIN: Final = 0.5
"""Seconds until a store that did not answer is asked again."""

_Answer: TypeAlias = VmExport | Done | Refused
_COMMAND: Final = msgpack.Decoder(Command)
_ANSWER: Final[msgpack.Decoder[_Answer]] = msgpack.Decoder(_Answer)


@asynccontextmanager
async def _kept(store: Store) -> AsyncIterator[Lease]:
    # A lease that is kept up for the length of an `async with`; what is in it is cancelled when it
    # ends nevertheless.
    lease = await store.lease(LEASE)

    async def keep() -> None:
        while True:
            await sleep(LEASE / 4)
            with suppress(StoreUnavailable):
                if not await lease.keep():
                    tasks.cancel_scope.cancel()

    try:
        async with create_task_group() as tasks:
            tasks.start_soon(keep)
            yield lease
            tasks.cancel_scope.cancel()
    finally:
        with move_on_after(1, shield=True), suppress(StoreUnavailable):
            await lease.end()


@define(eq=False)
class StoreLine:
    """The agent of a host, as whoever reaches the same store has it: an `Agent`.

    A host that is not alive is `HostUnreachable`, at once and while it is waited for; so what a
    device keeps from stopping is waited for as long as the host is there.
    """

    store: Store
    host: str

    async def carry_out(self, command: Command) -> VmExport | None:
        """Let the host carry out a command; see `Agent`."""
        answer: _Answer | IoasidError = StoreUnavailable("it dropped a command")
        async with _kept(self.store) as lease:
            try:
                answer = await self._ask(command, lease)
            except IoasidError as failure:
                answer = failure
        match answer:
            case VmExport() as export:
                return export
            case Done():
                return None
            case Refused() as refused:
                raise error_of(refused)
            case error:
                raise error

    async def _ask(self, command: Command, lease: Lease) -> _Answer:
        alive = host_key(self.host)
        number = token_hex(8)
        ask, answer = f"ask/{self.host}/{number}", f"answer/{number}"
        found, seen = await self.store.get(alive)
        if alive not in found:
            raise HostUnreachable(self.host)
        if await self.store.txn({}, {ask: msgpack.encode(command)}, lease) is None:
            raise StoreUnavailable("it dropped a command")
        try:
            # It may have gone before it could be asked.
            return await self._answer(answer, alive, seen + 1)
        finally:
            # What is left of it, if who answers was quicker than the end.
            with move_on_after(1, shield=True), suppress(StoreUnavailable):
                await self.store.txn({}, {answer: None, ask: None})

    async def _answer(self, answer: str, alive: str, since: int) -> _Answer:
        found: list[_Answer | IoasidError] = []

        async def watch(key: str) -> None:
            try:
                async with self.store.watch(key, since) as changes:
                    async for change in changes:
                        if change.key == answer and change.value is not None:
                            found.append(decoded(_ANSWER, answer, change.value))
                        elif change.key == alive and change.value is None:
                            found.append(HostUnreachable(self.host))
                        if found:
                            break
            except IoasidError as error:
                found.append(error)
            tasks.cancel_scope.cancel()

        async with create_task_group() as tasks:
            tasks.start_soon(watch, answer)
            tasks.start_soon(watch, alive)
        if isinstance(found[0], IoasidError):
            raise found[0]
        return found[0]


@asynccontextmanager
async def serving_agent(store: Store, host: str, agent: Agent) -> AsyncIterator[None]:
    """Let an agent carry out what is asked of a host through the store, while this is entered."""
    desk = _Desk(store, f"ask/{host}/", agent)
    async with create_task_group() as tasks:
        tasks.start_soon(desk.serve)
        yield
        tasks.cancel_scope.cancel()


@define(eq=False)
class _Desk:
    store: Store
    prefix: str
    agent: Agent
    under_way: dict[str, CancelScope] = field(factory=dict)

    async def serve(self) -> None:
        """Serve for ever; what was not answered is asked again when the store is back."""
        while True:
            try:
                async with _kept(self.store) as lease:
                    await self._serve(lease)
            except* (StoreUnavailable, HistoryLost):
                pass
            await sleep(AGAIN)

    async def _serve(self, lease: Lease) -> None:
        async with create_task_group() as tasks:
            found, revision = await self.store.get(self.prefix)
            for key, each in found.items():
                tasks.start_soon(self._carry_out, key, each.value, each.revision, lease)
            async with self.store.watch(self.prefix, revision + 1) as changes:
                async for change in changes:
                    key, value = change.key, change.value
                    if value is not None:
                        tasks.start_soon(self._carry_out, key, value, change.revision, lease)
                    elif key in self.under_way:
                        # Whoever asked is gone. What is half done, another one asks for again.
                        self.under_way[key].cancel()

    async def _carry_out(self, key: str, value: bytes, revision: int, lease: Lease) -> None:
        with CancelScope() as scope:
            self.under_way[key] = scope
            try:
                await self._answer(key, await self._done(value), revision, lease)
            finally:
                self.under_way.pop(key, None)

    async def _done(self, value: bytes) -> _Answer:
        try:
            command = _COMMAND.decode(value)
            return await self.agent.carry_out(command) or Done()
        except IoasidError as error:
            return refusal_of(error)
        except Exception:
            logger.exception("a command of the fleet was not carried out")
            return refusal_of(HostUnreachable(self.prefix.split("/")[1]))

    async def _answer(self, key: str, answer: _Answer, revision: int, lease: Lease) -> None:
        number = key.removeprefix(self.prefix)
        while True:
            write = {key: None, f"answer/{number}": msgpack.encode(answer)}
            try:
                await self.store.txn({key: revision}, write, lease)
                return
            except RecordTooLarge as error:
                answer = refusal_of(error)
            except StoreUnavailable:
                await sleep(AGAIN)
