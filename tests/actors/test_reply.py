"""The one-shot reply, on every backend."""

import asyncio
import subprocess
import sys

import anyio
import pytest

from ioasid.actors._reply import Reply, clock, reply_factory

pytestmark = pytest.mark.anyio


async def test_asker_gets_the_value() -> None:
    """An asker that waits gets the value once it is set."""
    reply: Reply[int] = reply_factory()()
    got: list[int] = []

    async def ask() -> None:
        got.append(await reply)

    async with anyio.create_task_group() as tg:
        tg.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert (False, False) == (reply.done(), reply.cancelled())
        reply.set_result(7)
        assert [] == got
        assert (True, False) == (reply.done(), reply.cancelled())
    assert [7] == got


async def test_every_asker_gets_its_own_value() -> None:
    """Replies resolved in one go reach each the asker that waits for it."""
    new_reply = reply_factory()
    replies: list[Reply[int]] = [new_reply() for _ in range(50)]
    got: dict[int, int] = {}

    async def ask(number: int) -> None:
        got[number] = await replies[number]

    async with anyio.create_task_group() as tg:
        for number in range(50):
            tg.start_soon(ask, number)
        await anyio.wait_all_tasks_blocked()
        for number, reply in enumerate(replies):
            reply.set_result(number * number)
    assert {number: number * number for number in range(50)} == got


async def test_resolved_before_awaited() -> None:
    """Awaiting a resolved reply, again too, returns before any other task runs."""
    reply: Reply[str] = reply_factory()()
    reply.set_result("early")
    ran: list[str] = []

    async def other() -> None:
        ran.append("other")

    async with anyio.create_task_group() as tg:
        tg.start_soon(other)
        assert "early" == await reply
        assert "early" == await reply
        assert [] == ran


async def test_resolved_reply_is_no_cancellation_point() -> None:
    """A resolved reply can be collected even in a cancelled scope."""
    reply: Reply[int] = reply_factory()()
    reply.set_result(1)
    with anyio.CancelScope() as scope:
        scope.cancel()
        assert 1 == await reply
    assert not scope.cancelled_caught


async def test_none_is_a_value() -> None:
    """A reply of None resolves like any other."""
    reply: Reply[int | None] = reply_factory()()
    reply.set_result(None)
    assert (True, False) == (reply.done(), reply.cancelled())
    assert await reply is None


async def test_errors_travel_as_values() -> None:
    """An exception set as the result is returned to the asker and not raised."""
    error = LookupError("no such set")
    reply: Reply[int | LookupError] = reply_factory()()
    reply.set_result(error)
    assert error is await reply


async def test_uncollected_error_makes_no_noise() -> None:
    """An error that nobody awaits is dropped without a warning."""
    reply: Reply[LookupError] = reply_factory()()
    reply.set_result(LookupError("nobody asks"))
    del reply
    await anyio.wait_all_tasks_blocked()


async def test_asker_cancelled_while_it_waits() -> None:
    """An asker cancelled before the reply leaves it cancelled at once."""
    reply: Reply[int] = reply_factory()()
    scope = anyio.CancelScope()

    async def ask() -> None:
        with scope:
            await reply

    async with anyio.create_task_group() as tg:
        tg.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        assert (True, True) == (reply.done(), reply.cancelled())
    assert scope.cancelled_caught


async def test_asker_cancelled_before_it_waits() -> None:
    """An asker in a scope cancelled already leaves the reply cancelled."""
    reply: Reply[int] = reply_factory()()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await reply
    assert scope.cancelled_caught
    assert (True, True) == (reply.done(), reply.cancelled())


async def test_asker_cancelled_after_the_reply() -> None:
    """A cancel scope that comes after the reply, before the asker runs, takes nothing away."""
    reply: Reply[int] = reply_factory()()
    scope = anyio.CancelScope()
    got: list[int] = []

    async def ask() -> None:
        with scope:
            got.append(await reply)

    async with anyio.create_task_group() as tg:
        tg.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        reply.set_result(3)
        scope.cancel()
        assert (True, False) == (reply.done(), reply.cancelled())
    assert [3] == got


def test_asyncio_cancels_an_asker_after_the_reply() -> None:
    """A task cancelled the asyncio way after the reply is cancelled, the reply is not."""

    async def main() -> None:
        reply: Reply[int] = reply_factory()()

        async def ask() -> int:
            return await reply

        asker = asyncio.create_task(ask())
        await anyio.wait_all_tasks_blocked()
        reply.set_result(3)
        asker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asker
        assert (True, False) == (reply.done(), reply.cancelled())

    asyncio.run(main())


async def test_shielded_asker_waits_on() -> None:
    """A shielded asker in a cancelled scope still gets its reply."""
    reply: Reply[int] = reply_factory()()
    outer = anyio.CancelScope()
    got: list[int] = []

    async def ask() -> None:
        with outer, anyio.CancelScope(shield=True):
            got.append(await reply)

    async with anyio.create_task_group() as tg:
        tg.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        outer.cancel()
        await anyio.lowlevel.checkpoint()
        assert not reply.done()
        reply.set_result(5)
    assert [5] == got


async def test_a_reply_is_resolved_once() -> None:
    """A second result is refused and the first one stays."""
    reply: Reply[int] = reply_factory()()
    reply.set_result(1)
    with pytest.raises(asyncio.InvalidStateError):
        reply.set_result(2)
    assert 1 == await reply


async def test_a_cancelled_reply_takes_no_result() -> None:
    """A result for a cancelled reply is refused and the reply stays cancelled."""
    reply: Reply[int] = reply_factory()()
    assert reply.cancel()
    with pytest.raises(asyncio.InvalidStateError):
        reply.set_result(1)
    assert (True, True) == (reply.done(), reply.cancelled())


async def test_cancel_gives_up_once() -> None:
    """Only the first cancel of a pending reply says that it did something."""
    reply: Reply[int] = reply_factory()()
    assert [True, False] == [reply.cancel(), reply.cancel()]


async def test_cancel_leaves_a_result_alone() -> None:
    """To cancel a resolved reply does nothing and says so."""
    reply: Reply[int] = reply_factory()()
    reply.set_result(1)
    assert not reply.cancel()
    assert not reply.cancelled()
    assert 1 == await reply


async def test_asyncio_uses_its_own_future(anyio_backend_name: str) -> None:
    """On asyncio and uvloop a reply is the loop's future, without a wrapper."""
    reply: object = reply_factory()()
    assert ("asyncio" == anyio_backend_name) == isinstance(reply, asyncio.Future)


def test_no_factory_without_an_event_loop() -> None:
    """Outside of an event loop there is no reply."""
    with pytest.raises(RuntimeError):
        reply_factory()


def test_asyncio_needs_no_trio() -> None:
    """Replies work on asyncio where trio isn't installed."""
    program = (
        "import sys\n"
        "sys.modules['trio'] = None\n"
        "import anyio\n"
        "from ioasid.actors._reply import reply_factory\n"
        "async def main():\n"
        "    reply = reply_factory()()\n"
        "    reply.set_result('answered')\n"
        "    print(await reply)\n"
        "anyio.run(main)\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert ("answered\n", "") == (result.stdout, result.stderr)


async def test_clock_is_the_event_loops() -> None:
    """The clock shows the time that the running event loop's deadlines are measured by."""
    now = clock()
    before = anyio.current_time()
    shown = now()
    assert before <= shown <= anyio.current_time()


def test_clock_needs_an_event_loop() -> None:
    """Outside of an event loop there is no clock to be had."""
    with pytest.raises(RuntimeError):
        clock()
