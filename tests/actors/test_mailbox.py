"""The mailbox, on every backend."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import anyio
import pytest
from anyio.lowlevel import checkpoint
from attrs.exceptions import FrozenInstanceError

from ioasid.actors._mailbox import Mailbox, MailboxClosed, MailboxStatistics
from ioasid.actors._reply import Reply, reply_factory

pytestmark = pytest.mark.anyio


async def drain(mailbox: Mailbox[int]) -> list[list[int]]:
    """Receive until the mailbox is empty, and return the batches."""
    batches = []
    while mailbox.statistics().admitted:
        batches.append(await mailbox.receive())
    return batches


def depths(mailbox: Mailbox[int]) -> tuple[int, int]:
    """Return how many items are admitted and how many wait."""
    statistics = mailbox.statistics()
    return statistics.admitted, statistics.waiting


# Sending and receiving


async def test_a_batch_is_everything_in_order() -> None:
    """One receive takes all that is there, in the order in which it was put."""
    mailbox: Mailbox[int] = Mailbox(8)
    for item in range(5):
        mailbox.put(item)
    assert [0, 1, 2, 3, 4] == await mailbox.receive()
    assert (0, 0) == depths(mailbox)


async def test_the_batch_is_the_callers() -> None:
    """What is put later doesn't show up in a batch handed out earlier, nor the reverse."""
    mailbox: Mailbox[int] = Mailbox(8)
    mailbox.put(1)
    batch = await mailbox.receive()
    mailbox.put(2)
    assert [1] == batch
    batch.clear()
    assert [2] == await mailbox.receive()


async def test_items_over_the_bound_wait() -> None:
    """Beyond the bound items wait, and are admitted as batches are taken."""
    mailbox: Mailbox[int] = Mailbox(2)
    for item in range(5):
        mailbox.put(item)
    assert (2, 3) == depths(mailbox)
    assert [0, 1] == await mailbox.receive()
    assert (2, 1) == depths(mailbox)
    assert [2, 3] == await mailbox.receive()
    assert (1, 0) == depths(mailbox)
    assert [4] == await mailbox.receive()


async def test_nobody_overtakes_the_waiting() -> None:
    """What is put after a batch was taken comes behind what waited before."""
    mailbox: Mailbox[int] = Mailbox(2)
    for item in range(5):
        mailbox.put(item)
    assert [0, 1] == await mailbox.receive()
    mailbox.put(5)
    mailbox.tell(6)
    assert [[2, 3], [4, 5], [6]] == await drain(mailbox)


async def test_bound_of_one() -> None:
    """The smallest mailbox hands out one item at a time."""
    mailbox: Mailbox[int] = Mailbox(1)
    for item in range(3):
        mailbox.put(item)
    assert [[0], [1], [2]] == await drain(mailbox)


async def test_tells_are_not_held_back() -> None:
    """One-way messages are admitted beyond the bound, and still come in batches of it."""
    mailbox: Mailbox[int] = Mailbox(2)
    for item in range(5):
        mailbox.tell(item)
    assert (5, 0) == depths(mailbox)
    assert [[0, 1], [2, 3], [4]] == await drain(mailbox)


async def test_an_ask_behind_tells_waits() -> None:
    """Tells beyond the bound count: an ask behind them waits until there is room."""
    mailbox: Mailbox[int] = Mailbox(2)
    for item in range(4):
        mailbox.tell(item)
    mailbox.put(4)
    assert (4, 1) == depths(mailbox)
    assert [0, 1] == await mailbox.receive()
    assert (2, 1) == depths(mailbox)
    assert [2, 3] == await mailbox.receive()
    assert [4] == await mailbox.receive()


async def test_a_tell_does_not_overtake_asks() -> None:
    """A sender's tell comes out behind its ask, also when that ask has to wait."""
    mailbox: Mailbox[int] = Mailbox(1)
    mailbox.put(0)
    mailbox.put(1)
    mailbox.tell(2)
    assert (1, 2) == depths(mailbox)
    assert [[0], [1], [2]] == await drain(mailbox)


@pytest.mark.parametrize("bound", [1, 2, 3, 7, 100])
async def test_first_in_first_out(bound: int) -> None:
    """However asks, tells and batches mix, items come out as they went in."""
    mailbox: Mailbox[int] = Mailbox(bound)
    out: list[int] = []
    for item in range(60):
        if item % 3:
            mailbox.put(item)
        else:
            mailbox.tell(item)
        if item % 7 == 0:
            batch = await mailbox.receive()
            assert 1 <= len(batch) <= bound
            out += batch
    for batch in await drain(mailbox):
        out += batch
    assert list(range(60)) == out


# Sleeping and waking


async def test_put_wakes_the_consumer() -> None:
    """A consumer that sleeps gets what is put."""
    mailbox: Mailbox[int] = Mailbox(4)
    batches: list[list[int]] = []

    async def consume() -> None:
        batches.append(await mailbox.receive())

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        mailbox.put(1)
        assert [] == batches
    assert [[1]] == batches


async def test_tell_wakes_the_consumer() -> None:
    """A consumer that sleeps gets what is told."""
    mailbox: Mailbox[int] = Mailbox(4)
    batches: list[list[int]] = []

    async def consume() -> None:
        batches.append(await mailbox.receive())

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        mailbox.tell(1)
    assert [[1]] == batches


async def test_one_wake_up_for_many_messages() -> None:
    """Messages sent in one go wake the consumer once, with all of them in one batch."""
    mailbox: Mailbox[int] = Mailbox(4)
    batches: list[list[int]] = []

    async def consume() -> None:
        while True:
            batches.append(await mailbox.receive())

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        for start in (0, 10):
            await anyio.wait_all_tasks_blocked()
            mailbox.put(start)
            mailbox.tell(start + 1)
            mailbox.put(start + 2)
        await anyio.wait_all_tasks_blocked()
        tg.cancel_scope.cancel()
    assert [[0, 1, 2], [10, 11, 12]] == batches


async def test_a_busy_consumer_lets_others_run() -> None:
    """A consumer whose mailbox is never empty does not keep other tasks from running."""
    mailbox: Mailbox[int] = Mailbox(1)
    ran = anyio.Event()

    async def other() -> None:
        await checkpoint()
        ran.set()

    async with anyio.create_task_group() as tg:
        tg.start_soon(other)
        mailbox.put(0)
        for item in range(10):
            assert [item] == await mailbox.receive()
            mailbox.put(item + 1)
        assert ran.is_set()


async def test_one_consumer() -> None:
    """A second task in receive gets an error, and the first one its items."""
    mailbox: Mailbox[int] = Mailbox(4)
    batches: list[list[int]] = []

    async def consume() -> None:
        batches.append(await mailbox.receive())

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await mailbox.receive()
        mailbox.put(1)
    assert [[1]] == batches


# Cancellation


async def test_a_cancelled_sleeper_leaves_the_mailbox_usable() -> None:
    """After a sleeping receive was cancelled, the next one gets what is put."""
    mailbox: Mailbox[int] = Mailbox(4)
    scope = anyio.CancelScope()

    async def consume() -> None:
        with scope:
            await mailbox.receive()

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
    assert scope.cancelled_caught
    mailbox.put(1)
    assert [1] == await mailbox.receive()


async def test_a_cancelled_receive_takes_nothing() -> None:
    """A receive cancelled while items are there leaves them all, in order."""
    mailbox: Mailbox[int] = Mailbox(2)
    for item in range(3):
        mailbox.put(item)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await mailbox.receive()
    assert scope.cancelled_caught
    assert (2, 1) == depths(mailbox)
    assert [[0, 1], [2]] == await drain(mailbox)


@pytest.mark.parametrize("send", [Mailbox[int].put, Mailbox[int].tell])
async def test_sending_to_a_consumer_just_cancelled(
    send: Callable[[Mailbox[int], int], None],
) -> None:
    """An item sent when the sleeper is cancelled but has not run yet waits for the next one."""
    mailbox: Mailbox[int] = Mailbox(4)
    scope = anyio.CancelScope()

    async def consume() -> None:
        with scope:
            await mailbox.receive()

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        send(mailbox, 1)
    assert scope.cancelled_caught
    assert [1] == await mailbox.receive()


async def test_closing_on_a_consumer_just_cancelled() -> None:
    """A close when the sleeper is cancelled but has not run yet leaves it cancelled."""
    mailbox: Mailbox[int] = Mailbox(4)
    scope = anyio.CancelScope()

    async def consume() -> None:
        with scope:
            await mailbox.receive()

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        assert [] == mailbox.close()
    assert scope.cancelled_caught


async def test_cancelling_a_consumer_just_woken() -> None:
    """An item put right before the sleeper is cancelled is received once, by either receive."""
    mailbox: Mailbox[int] = Mailbox(4)
    scope = anyio.CancelScope()
    received: list[int] = []

    async def consume() -> None:
        with scope:
            received.extend(await mailbox.receive())

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        mailbox.put(1)
        scope.cancel()
    assert [1] == received + mailbox.close()


def test_asyncio_cancels_a_consumer_just_woken() -> None:
    """A task cancelled the asyncio way after its wake-up leaves the item for the next receive."""

    async def main() -> None:
        mailbox: Mailbox[int] = Mailbox(4)
        consumer = asyncio.create_task(mailbox.receive())
        await anyio.wait_all_tasks_blocked()
        mailbox.put(1)
        consumer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer
        assert [1] == await mailbox.receive()

    asyncio.run(main())


# Closing


async def test_close_returns_what_is_left() -> None:
    """Close hands back every item, admitted or waiting, in order."""
    mailbox: Mailbox[int] = Mailbox(2)
    for item in range(5):
        mailbox.put(item)
    mailbox.tell(5)
    assert [0, 1, 2, 3, 4, 5] == mailbox.close()
    assert (0, 0) == depths(mailbox)


async def test_close_again() -> None:
    """A second close is fine and has nothing to return."""
    mailbox: Mailbox[int] = Mailbox(2)
    mailbox.put(1)
    assert [[1], []] == [mailbox.close(), mailbox.close()]


async def test_nothing_enters_a_closed_mailbox() -> None:
    """Put and tell are refused after close and leave nothing behind."""
    mailbox: Mailbox[int] = Mailbox(2)
    mailbox.close()
    with pytest.raises(MailboxClosed, match="the mailbox is closed"):
        mailbox.put(1)
    with pytest.raises(MailboxClosed):
        mailbox.tell(2)
    assert [] == mailbox.close()


async def test_nothing_leaves_a_closed_mailbox() -> None:
    """Receive is refused after close, however often."""
    mailbox: Mailbox[int] = Mailbox(2)
    mailbox.put(1)
    mailbox.close()
    for _ in range(2):
        with pytest.raises(MailboxClosed):
            await mailbox.receive()


async def test_close_wakes_the_consumer() -> None:
    """A sleeping consumer learns of the close."""
    mailbox: Mailbox[int] = Mailbox(2)
    closed = anyio.Event()

    async def consume() -> None:
        with pytest.raises(MailboxClosed):
            await mailbox.receive()
        closed.set()

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        assert [] == mailbox.close()
    assert closed.is_set()


async def test_close_right_after_put() -> None:
    """An item whose consumer is woken but has not run yet belongs to who closes."""
    mailbox: Mailbox[int] = Mailbox(2)
    closed = anyio.Event()

    async def consume() -> None:
        with pytest.raises(MailboxClosed):
            await mailbox.receive()
        closed.set()

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        mailbox.put(1)
        assert [1] == mailbox.close()
    assert closed.is_set()


async def test_close_between_batches() -> None:
    """However close and a busy consumer meet, each item goes to exactly one of them."""
    mailbox: Mailbox[int] = Mailbox(1)
    for item in range(20):
        mailbox.put(item)
    received: list[int] = []
    left: list[int] = []
    halfway = anyio.Event()

    async def consume() -> None:
        while len(received) < 10:
            received.extend(await mailbox.receive())
        halfway.set()
        with suppress(MailboxClosed):
            while True:
                received.extend(await mailbox.receive())

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        await halfway.wait()
        left = mailbox.close()
    assert 10 <= len(received) < 20
    assert list(range(20)) == received + left


# Statistics and arguments


async def test_statistics() -> None:
    """The figures follow what goes in and out."""
    mailbox: Mailbox[int] = Mailbox(2)
    assert MailboxStatistics(2, 0, 0, 0, 0) == mailbox.statistics()
    for item in range(5):
        mailbox.put(item)
    assert (
        MailboxStatistics(bound=2, admitted=2, waiting=3, received=0, largest_depth=5)
        == mailbox.statistics()
    )
    await mailbox.receive()
    assert (
        MailboxStatistics(bound=2, admitted=2, waiting=1, received=2, largest_depth=5)
        == mailbox.statistics()
    )
    await drain(mailbox)
    mailbox.put(5)
    assert (
        MailboxStatistics(bound=2, admitted=1, waiting=0, received=5, largest_depth=5)
        == mailbox.statistics()
    )


async def test_largest_depth_is_seen_by_receive() -> None:
    """The largest depth counts what came and went between two looks at the figures."""
    mailbox: Mailbox[int] = Mailbox(2)
    for item in range(3):
        mailbox.put(item)
    await drain(mailbox)
    assert 3 == mailbox.statistics().largest_depth


async def test_statistics_of_a_closed_mailbox() -> None:
    """Closing empties the mailbox and keeps the totals."""
    mailbox: Mailbox[int] = Mailbox(2)
    mailbox.put(0)
    await mailbox.receive()
    for item in range(3):
        mailbox.put(item)
    mailbox.close()
    assert (
        MailboxStatistics(bound=2, admitted=0, waiting=0, received=1, largest_depth=3)
        == mailbox.statistics()
    )


async def test_statistics_are_frozen() -> None:
    """A record of figures can't be changed, and doesn't change by itself."""
    mailbox: Mailbox[int] = Mailbox(2)
    before = mailbox.statistics()
    mailbox.put(1)
    assert 0 == before.admitted
    with pytest.raises(FrozenInstanceError):
        before.admitted = 1  # type: ignore[misc]


@pytest.mark.parametrize("bound", [0, -1])
async def test_bound_too_small(bound: int) -> None:
    """A mailbox without room is refused."""
    with pytest.raises(ValueError, match=f"at least 1, not {bound}"):
        Mailbox(bound)


@pytest.mark.parametrize("bound", [True, False, 2.0, "2", None])
async def test_bound_of_another_type(bound: object) -> None:
    """A bound that is no int is refused, and a bool is none."""
    with pytest.raises(TypeError, match="must be an int"):
        Mailbox(bound)  # type: ignore[arg-type]


def test_no_mailbox_without_an_event_loop() -> None:
    """Outside of an event loop there is no mailbox."""
    with pytest.raises(RuntimeError):
        Mailbox(1)


# Together with replies, as an actor uses it


async def serve(mailbox: Mailbox[tuple[int, Reply[int | Exception]]], decided: list[int]) -> None:
    """Decide every request of a batch, then release the replies, until closed."""
    while True:
        try:
            batch = await mailbox.receive()
        except MailboxClosed:
            return
        answers = []
        for number, reply in batch:
            if not reply.cancelled():
                decided.append(number)
                answers.append((reply, number * 10))
        for reply, answer in answers:
            if not reply.done():
                reply.set_result(answer)


@pytest.mark.parametrize("bound", [1, 7, 1000])
async def test_every_ask_gets_its_answer(bound: int) -> None:
    """Many askers at once, over the bound too, each get their own answers."""
    mailbox: Mailbox[tuple[int, Reply[int | Exception]]] = Mailbox(bound)
    new_reply = reply_factory()
    answers: dict[int, int | Exception] = {}
    decided: list[int] = []

    async def ask(client: int) -> None:
        for number in range(client * 5, client * 5 + 5):
            reply = new_reply()
            mailbox.put((number, reply))
            answers[number] = await reply

    async with anyio.create_task_group() as tg:
        tg.start_soon(serve, mailbox, decided)
        async with anyio.create_task_group() as clients:
            for client in range(20):
                clients.start_soon(ask, client)
        mailbox.close()
    assert {number: number * 10 for number in range(100)} == answers
    assert list(range(100)) == sorted(decided)
    assert 100 == mailbox.statistics().received


async def test_a_request_given_up_is_not_decided() -> None:
    """The request of an asker cancelled while it was queued is dropped, others are not."""
    mailbox: Mailbox[tuple[int, Reply[int | Exception]]] = Mailbox(1)
    new_reply = reply_factory()
    scope = anyio.CancelScope()
    answers: list[int | Exception] = []
    decided: list[int] = []

    async def ask(number: int) -> None:
        reply = new_reply()
        mailbox.put((number, reply))
        answers.append(await reply)

    async def give_up() -> None:
        with scope:
            await ask(2)

    async with anyio.create_task_group() as tg:
        async with anyio.create_task_group() as clients:
            clients.start_soon(give_up)
            await anyio.wait_all_tasks_blocked()
            clients.start_soon(ask, 1)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            tg.start_soon(serve, mailbox, decided)
        mailbox.close()
    assert scope.cancelled_caught
    assert ([1], [10]) == (decided, answers)


async def test_pending_asks_fail_at_close() -> None:
    """Whoever closes can fail every ask that is left, waiting ones included."""
    mailbox: Mailbox[tuple[int, Reply[int | Exception]]] = Mailbox(2)
    new_reply = reply_factory()
    failed: list[int] = []

    async def ask(number: int) -> None:
        reply = new_reply()
        mailbox.put((number, reply))
        answer = await reply
        assert isinstance(answer, ConnectionError)
        failed.append(number)

    async with anyio.create_task_group() as tg:
        for number in range(5):
            tg.start_soon(ask, number)
        await anyio.wait_all_tasks_blocked()
        for _, reply in mailbox.close():
            reply.set_result(ConnectionError("closed"))
    assert [0, 1, 2, 3, 4] == sorted(failed)
