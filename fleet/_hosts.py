"""The hosts of a fleet: which are alive. One that is not may still run what it ran."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from anyio import create_task_group, move_on_after, sleep
from msgspec import msgpack

from ioasid.actors._one_task import one_task
from ioasid.core import InvalidArgument, Message, Statistics
from ioasid.fleet._errors import StoreUnavailable
from ioasid.fleet._store import Store, decoded, host_name

__all__ = ["HostRecord", "alive_hosts", "announce"]

logger = logging.getLogger("ioasid.fleet")

HOSTS: Final = "host/"


class HostRecord(Message, frozen=True):
    """A host that is alive, with the figures that it gave last; `None` if it gives none."""

    host: str
    capacity: int | None = None
    available: int | None = None
    """How many IDs are promised to nobody."""
    sets: int | None = None
    active: int | None = None
    """How many IDs are in use."""


_DECODER: Final = msgpack.Decoder(HostRecord)


def host_key(host: str) -> str:
    """Return the key of a host that is alive."""
    return HOSTS + host


@asynccontextmanager
async def announce(
    store: Store,
    host: str,
    *,
    seconds: int = 10,
    figures: Callable[[], Awaitable[Statistics]] | None = None,
) -> AsyncIterator[None]:
    """Let the fleet know, for the length of an `async with`, that a host is alive.

    Left, or not kept up for `seconds` (1 or more), it is not. That says that its agent does not
    answer, and nothing about its hardware: nobody takes a VM away from it for that. `figures`, such
    as `Session.statistics`, are those of its allocator, which others see.
    """
    if type(seconds) is not int or seconds < 1:
        raise InvalidArgument.of("seconds", seconds, "a whole number of 1 or more")
    host_name(host)

    async def keep() -> None:
        lease = None
        told, said = b"", ""
        try:
            while True:
                now = HostRecord(host)
                if figures is not None:
                    found = await figures()
                    now = HostRecord(
                        host, found.capacity, found.available, found.sets, found.active
                    )
                value = msgpack.encode(now)
                try:
                    if lease is None or not await lease.keep():
                        lease, told = await store.lease(seconds), b""
                    if value != told:
                        await store.txn({}, {host_key(host): value}, lease)
                        told = value
                    if said:
                        logger.info("the store of the fleet answers again")
                    said = ""
                except StoreUnavailable as error:
                    if said != str(error):
                        logger.warning("the fleet takes %s for not alive: %s", host, error)
                    said = str(error)
                await sleep(seconds / 3)
        finally:
            if lease is not None:
                with move_on_after(1, shield=True), suppress(StoreUnavailable):
                    await lease.end()

    with one_task("announce"):
        async with create_task_group() as tasks:
            tasks.start_soon(keep)
            yield
            tasks.cancel_scope.cancel()


async def alive_hosts(store: Store) -> tuple[HostRecord, ...]:
    """Return the hosts that are alive, ascending by name. Raises `UnreadableRecord`."""
    found, _ = await store.get(HOSTS)
    return tuple(decoded(_DECODER, key, found[key].value) for key in sorted(found))
