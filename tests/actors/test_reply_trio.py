"""What the reply does on trio alone; what it shares with asyncio is in test_reply.py."""

import asyncio
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from ioasid.actors._reply import reply_factory
from ioasid.actors._reply_trio import TrioReply

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run on trio only."""
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


async def test_trio_gets_the_trio_reply() -> None:
    """Under trio the factory makes trio's replies."""
    assert isinstance(reply_factory()(), TrioReply)


async def test_a_second_asker_is_turned_away() -> None:
    """A task that awaits a reply already awaited gets an error, the first its value."""
    reply: TrioReply[int] = TrioReply()
    got: list[int] = []

    async def ask() -> None:
        got.append(await reply)

    async with anyio.create_task_group() as tg:
        tg.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await reply
        reply.set_result(1)
    assert [1] == got


async def test_cancel_wakes_the_asker() -> None:
    """An asker whose reply is cancelled from outside raises rather than sleeps for ever."""
    reply: TrioReply[int] = TrioReply()

    async def ask() -> None:
        with pytest.raises(asyncio.InvalidStateError):
            await reply

    async with anyio.create_task_group() as tg:
        tg.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert reply.cancel()
    assert reply.cancelled()


async def test_awaiting_a_cancelled_reply_raises() -> None:
    """A reply given up can't be awaited."""
    reply: TrioReply[int] = TrioReply()
    reply.cancel()
    with pytest.raises(asyncio.InvalidStateError):
        await reply


def test_trio_as_a_guest_of_asyncio() -> None:
    """Where trio runs inside an asyncio loop, a trio task still gets trio's reply."""

    async def guest() -> int:
        reply = reply_factory()()
        assert isinstance(reply, TrioReply)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(resolve, reply)
            value: int = await reply
        return value

    async def resolve(reply: TrioReply[int]) -> None:
        await trio.testing.wait_all_tasks_blocked()
        reply.set_result(9)

    async def host() -> int:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[int] = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=lambda outcome: ended.set_result(outcome.unwrap()),
        )
        return await ended

    assert 9 == asyncio.run(host())
