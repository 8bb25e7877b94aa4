"""The mailbox, on every backend."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import TypeVar

import anyio
import pytest
from anyio.lowlevel import checkpoint
from attrs.exceptions import FrozenInstanceError

from ioasid.actors._mailbox import (
    CALM,
    LONE_SHARE,
    SHARE,
    Lane,
    Mailbox,
    MailboxClosed,
    MailboxStatistics,
)
from ioasid.actors._reply import Reply, reply_factory

pytestmark = pytest.mark.anyio

T = TypeVar("T")


def nobody(_: object) -> bool:
    """Say of any item that its asker still waits."""
    return False


def one_lane(bound: int) -> tuple[Mailbox[int], Lane[int]]:
    """Return a mailbox and its only lane."""
    mailbox: Mailbox[int] = Mailbox(bound, nobody)
    return mailbox, mailbox.lane()


def put_all(lane: Lane[int], items: Iterable[int]) -> None:
    """Put several items into a lane."""
    for item in items:
        lane.put(item)


async def receive(mailbox: Mailbox[T]) -> list[T]:
    """Wait until there is something in a mailbox, and take a batch of it."""
    await mailbox.ready()
    return mailbox.take()


async def drain(mailbox: Mailbox[int]) -> list[list[int]]:
    """Receive until the mailbox is empty, and return the batches."""
    batches = []
    while mailbox.statistics().waiting:
        batches.append(await receive(mailbox))
    return batches


# Sending and receiving


async def test_a_roused_consumer_takes_what_there_is() -> None:
    """It wakes though nothing is in the mailbox, once, and goes to sleep again."""
    mailbox, lane = one_lane(8)
    batches: list[list[int]] = []

    async def consume() -> None:
        with suppress(MailboxClosed):
            while True:
                batches.append(await receive(mailbox))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        mailbox.rouse()
        mailbox.rouse()
        await anyio.wait_all_tasks_blocked()
        assert [[]] == batches
        lane.put(1)
        mailbox.rouse()
        await anyio.wait_all_tasks_blocked()
        mailbox.rouse()
        await anyio.wait_all_tasks_blocked()
        assert [[], [1], []] == batches
        mailbox.close()


async def test_a_batch_is_everything_in_order() -> None:
    """One receive takes all that is there, in the order in which it was put."""
    mailbox, lane = one_lane(8)
    for item in range(5):
        lane.put(item)
    assert [0, 1, 2, 3, 4] == await receive(mailbox)
    assert 0 == mailbox.statistics().waiting


async def test_the_batch_is_the_callers() -> None:
    """What is put later doesn't show up in a batch handed out earlier, nor the reverse."""
    mailbox, lane = one_lane(8)
    lane.put(1)
    batch = await receive(mailbox)
    lane.put(2)
    assert [1] == batch
    batch.clear()
    assert [2] == await receive(mailbox)


async def test_items_over_the_bound_wait() -> None:
    """Beyond the bound items wait for the next batch; nobody has to wait to put one."""
    mailbox, lane = one_lane(2)
    put_all(lane, range(5))
    assert 5 == mailbox.statistics().waiting
    assert [0, 1] == await receive(mailbox)
    lane.put(5)
    assert [[2, 3], [4, 5]] == await drain(mailbox)


async def test_bound_of_one() -> None:
    """The smallest mailbox hands out one item at a time."""
    mailbox, lane = one_lane(1)
    put_all(lane, range(3))
    assert [[0], [1], [2]] == await drain(mailbox)


@pytest.mark.parametrize("bound", [1, 2, 3, 7, 100])
async def test_first_in_first_out(bound: int) -> None:
    """However puts and batches of several lanes mix, each lane's items keep their order."""
    mailbox: Mailbox[int] = Mailbox(bound, nobody)
    lanes = [mailbox.lane() for _ in range(3)]
    out: list[int] = []
    for item in range(120):
        lanes[item % 3].put(item)
        if item % 7 == 0:
            batch = await receive(mailbox)
            assert 1 <= len(batch) <= bound
            out += batch
    for batch in await drain(mailbox):
        assert 1 <= len(batch) <= bound
        out += batch
    for number in range(3):
        assert list(range(number, 120, 3)) == [item for item in out if item % 3 == number]


# Fairness


async def test_a_lane_that_floods_delays_others_by_its_share() -> None:
    """Behind ten thousand items of one lane, another lane's only one is in the next batch."""
    mailbox: Mailbox[int] = Mailbox(1024, nobody)
    flood, other = mailbox.lane(), mailbox.lane()
    put_all(flood, range(10_000))
    other.put(-1)
    assert [-1, *range(SHARE)] == await receive(mailbox)
    other.put(-2)
    assert [-2, *range(SHARE, 2 * SHARE)] == await receive(mailbox)


async def test_a_batch_is_one_round() -> None:
    """Every lane that holds something has its share in every batch, short ones first."""
    mailbox: Mailbox[int] = Mailbox(1024, nobody)
    lanes = [mailbox.lane() for _ in range(3)]
    put_all(lanes[0], range(2 * SHARE))
    put_all(lanes[1], range(100, 100 + SHARE))
    put_all(lanes[2], range(200, 201 + SHARE))
    assert [
        *range(100, 100 + SHARE),
        *range(SHARE),
        *range(200, 200 + SHARE),
    ] == await receive(mailbox)
    assert [*range(SHARE, 2 * SHARE), 200 + SHARE] == await receive(mailbox)


async def test_lanes_beyond_the_bound_have_their_turn() -> None:
    """Where the bound ends a round, the next batch goes on with the lanes that had none."""
    mailbox: Mailbox[int] = Mailbox(3, nobody)
    lanes = [mailbox.lane() for _ in range(5)]
    for number, lane in enumerate(lanes):
        put_all(lane, [number] * (SHARE + 1))
    assert [[0, 0, 1], [2, 2, 3], [0, 4, 4], [1, 1, 2], [3, 3, 4]] == await drain(mailbox)


async def test_a_sender_alone_has_a_larger_share() -> None:
    """While only one sender asks, whatever others tell, more of it is in a batch."""
    mailbox: Mailbox[int] = Mailbox(1024, nobody)
    alone, told = mailbox.lane(), mailbox.lane()
    put_all(alone, range(2 * LONE_SHARE))
    told.tell(-1)
    assert [-1, *range(LONE_SHARE)] == await receive(mailbox)
    assert list(range(LONE_SHARE, 2 * LONE_SHARE)) == await receive(mailbox)


async def test_a_sender_is_alone_again_after_a_while() -> None:
    """After another sender asked, batches are short and grow, the longer it does not come again."""
    mailbox: Mailbox[int] = Mailbox(1024, nobody)
    flood, other = mailbox.lane(), mailbox.lane()
    other.put(-1)
    put_all(flood, range(CALM * LONE_SHARE**2))
    assert [-1, *range(SHARE)] == mailbox.take()
    for _ in range(CALM - 1):
        assert SHARE == len(mailbox.take())
    for share in range(SHARE + 1, LONE_SHARE):
        for _ in range(CALM):
            assert share == len(mailbox.take())
    for _ in range(2 * CALM):
        assert LONE_SHARE == len(mailbox.take())
    other.put(-2)
    assert SHARE + 1 == len(mailbox.take())
    assert SHARE == len(mailbox.take())


async def test_who_leaves_goes_first() -> None:
    """All that a leaving lane holds is handed out before what others put, before or after."""
    mailbox: Mailbox[int] = Mailbox(SHARE + 2, nobody)
    others, leaving = mailbox.lane(), mailbox.lane()
    put_all(others, range(3 * SHARE))
    put_all(leaving, range(100, 100 + 2 * SHARE))
    leaving.leave(-1)
    others.put(-2)
    batches = await drain(mailbox)
    assert [*range(100, 100 + 2 * SHARE), -1, *range(3 * SHARE), -2] == [
        item for batch in batches for item in batch
    ]


async def test_what_was_given_up_takes_no_share() -> None:
    """Items that nobody waits for any more are dropped, and those behind them have their turn."""
    given_up = set(range(1000))
    mailbox: Mailbox[int] = Mailbox(1024, given_up.__contains__)
    flood, _ = mailbox.lane(), mailbox.lane()
    put_all(flood, range(1000 + SHARE))
    assert list(range(1000, 1000 + SHARE)) == await receive(mailbox)
    assert 0 == mailbox.statistics().waiting


# Sleeping and waking


async def test_put_wakes_the_consumer() -> None:
    """A consumer that sleeps gets what is put."""
    mailbox, lane = one_lane(4)
    batches: list[list[int]] = []

    async def consume() -> None:
        batches.append(await receive(mailbox))

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        lane.put(1)
        assert [] == batches
    assert [[1]] == batches


async def test_one_wake_up_for_many_messages() -> None:
    """Messages sent in one go wake the consumer once, with all of them in one batch."""
    mailbox, lane = one_lane(4)
    batches: list[list[int]] = []

    async def consume() -> None:
        while True:
            batches.append(await receive(mailbox))

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        for start in (0, 10):
            await anyio.wait_all_tasks_blocked()
            lane.put(start)
            lane.put(start + 1)
            lane.put(start + 2)
        await anyio.wait_all_tasks_blocked()
        tg.cancel_scope.cancel()
    assert [[0, 1, 2], [10, 11, 12]] == batches


async def test_a_busy_consumer_lets_others_run() -> None:
    """A consumer whose mailbox is never empty does not keep other tasks from running."""
    mailbox, lane = one_lane(1)
    ran = anyio.Event()

    async def other() -> None:
        await checkpoint()
        ran.set()

    async with anyio.create_task_group() as tg:
        tg.start_soon(other)
        lane.put(0)
        for item in range(10):
            assert [item] == await receive(mailbox)
            lane.put(item + 1)
        assert ran.is_set()


async def test_one_consumer() -> None:
    """A second task that would sleep gets an error, and the first one its items."""
    mailbox, lane = one_lane(4)
    batches: list[list[int]] = []

    async def consume() -> None:
        batches.append(await receive(mailbox))

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await receive(mailbox)
        lane.put(1)
    assert [[1]] == batches


# Cancellation


async def test_a_cancelled_sleeper_leaves_the_mailbox_usable() -> None:
    """After a sleeping receive was cancelled, the next one gets what is put."""
    mailbox, lane = one_lane(4)
    scope = anyio.CancelScope()

    async def consume() -> None:
        with scope:
            await receive(mailbox)

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
    assert scope.cancelled_caught
    lane.put(1)
    assert [1] == await receive(mailbox)


async def test_a_cancelled_receive_takes_nothing() -> None:
    """A receive cancelled while items are there leaves them all, in order."""
    mailbox, lane = one_lane(2)
    for item in range(3):
        lane.put(item)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await receive(mailbox)
    assert scope.cancelled_caught
    assert 3 == mailbox.statistics().waiting
    assert [[0, 1], [2]] == await drain(mailbox)


async def test_sending_to_a_consumer_just_cancelled() -> None:
    """An item sent when the sleeper is cancelled but has not run yet waits for the next one."""
    mailbox, lane = one_lane(4)
    scope = anyio.CancelScope()

    async def consume() -> None:
        with scope:
            await receive(mailbox)

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        lane.put(1)
    assert scope.cancelled_caught
    assert [1] == await receive(mailbox)


async def test_closing_on_a_consumer_just_cancelled() -> None:
    """A close when the sleeper is cancelled but has not run yet leaves it cancelled."""
    mailbox, _ = one_lane(4)
    scope = anyio.CancelScope()

    async def consume() -> None:
        with scope:
            await receive(mailbox)

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        assert [] == mailbox.close()
    assert scope.cancelled_caught


async def test_cancelling_a_consumer_just_woken() -> None:
    """An item put right before the sleeper is cancelled is received once, by either receive."""
    mailbox, lane = one_lane(4)
    scope = anyio.CancelScope()
    received: list[int] = []

    async def consume() -> None:
        with scope:
            received.extend(await receive(mailbox))

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        lane.put(1)
        scope.cancel()
    assert [1] == received + mailbox.close()


def test_asyncio_cancels_a_consumer_just_woken() -> None:
    """A task cancelled the asyncio way after its wake-up leaves the item for the next receive."""

    async def main() -> None:
        mailbox, lane = one_lane(4)
        consumer = asyncio.create_task(receive(mailbox))
        await anyio.wait_all_tasks_blocked()
        lane.put(1)
        consumer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer
        assert [1] == await receive(mailbox)

    asyncio.run(main())


# Closing


async def test_close_returns_what_is_left() -> None:
    """Close hands back every item, lane by lane, leaving ones first."""
    mailbox, lane = one_lane(2)
    other, leaving = mailbox.lane(), mailbox.lane()
    put_all(lane, range(5))
    put_all(other, (5, 6))
    leaving.put(7)
    leaving.leave(8)
    assert [7, 8, 0, 1, 2, 3, 4, 5, 6] == mailbox.close()
    assert 0 == mailbox.statistics().waiting


async def test_close_again() -> None:
    """A second close is fine and has nothing to return."""
    mailbox, lane = one_lane(2)
    lane.put(1)
    assert [[1], []] == [mailbox.close(), mailbox.close()]


async def test_nothing_enters_a_closed_mailbox() -> None:
    """Nothing can be put after close, by whatever way, and nothing is left behind."""
    mailbox, lane = one_lane(2)
    mailbox.close()
    with pytest.raises(MailboxClosed, match="the mailbox is closed"):
        lane.put(1)
    with pytest.raises(MailboxClosed):
        lane.tell(2)
    with pytest.raises(MailboxClosed):
        lane.leave(2)
    assert 0 == mailbox.statistics().waiting
    assert [] == mailbox.close()


async def test_nothing_leaves_a_closed_mailbox() -> None:
    """Nothing can be taken after close, however often it is tried."""
    mailbox, lane = one_lane(2)
    lane.put(1)
    mailbox.close()
    for _ in range(2):
        with pytest.raises(MailboxClosed):
            await receive(mailbox)


async def test_close_wakes_the_consumer() -> None:
    """A sleeping consumer learns of the close."""
    mailbox, _ = one_lane(2)
    closed = anyio.Event()

    async def consume() -> None:
        with pytest.raises(MailboxClosed):
            await receive(mailbox)
        closed.set()

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        assert [] == mailbox.close()
    assert closed.is_set()


async def test_close_right_after_put() -> None:
    """An item whose consumer is woken but has not run yet belongs to who closes."""
    mailbox, lane = one_lane(2)
    closed = anyio.Event()

    async def consume() -> None:
        with pytest.raises(MailboxClosed):
            await receive(mailbox)
        closed.set()

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        lane.put(1)
        assert [1] == mailbox.close()
    assert closed.is_set()


async def test_close_between_batches() -> None:
    """However close and a busy consumer meet, each item goes to exactly one of them."""
    mailbox, lane = one_lane(1)
    for item in range(20):
        lane.put(item)
    received: list[int] = []
    left: list[int] = []
    halfway = anyio.Event()

    async def consume() -> None:
        while len(received) < 10:
            received.extend(await receive(mailbox))
        halfway.set()
        with suppress(MailboxClosed):
            while True:
                received.extend(await receive(mailbox))

    async with anyio.create_task_group() as tg:
        tg.start_soon(consume)
        await halfway.wait()
        left = mailbox.close()
    assert 10 <= len(received) < 20
    assert list(range(20)) == received + left


# Statistics and arguments


async def test_statistics() -> None:
    """The figures follow what goes in and out."""
    mailbox, lane = one_lane(2)
    assert MailboxStatistics(bound=2, waiting=0) == mailbox.statistics()
    other = mailbox.lane()
    put_all(lane, range(5))
    other.put(5)
    assert MailboxStatistics(bound=2, waiting=6) == mailbox.statistics()
    await receive(mailbox)
    assert MailboxStatistics(bound=2, waiting=4) == mailbox.statistics()
    other.leave(6)
    assert MailboxStatistics(bound=2, waiting=5) == mailbox.statistics()
    mailbox.close()
    assert MailboxStatistics(bound=2, waiting=0) == mailbox.statistics()


async def test_statistics_are_frozen() -> None:
    """A record of figures can't be changed, and doesn't change by itself."""
    mailbox, lane = one_lane(2)
    before = mailbox.statistics()
    lane.put(1)
    assert 0 == before.waiting
    with pytest.raises(FrozenInstanceError):
        before.waiting = 1  # type: ignore[misc]


@pytest.mark.parametrize("bound", [0, -1])
async def test_bound_too_small(bound: int) -> None:
    """A mailbox without room is refused."""
    with pytest.raises(ValueError, match=f"at least 1, not {bound}"):
        Mailbox(bound, nobody)


@pytest.mark.parametrize("bound", [True, False, 2.0, "2", None])
async def test_bound_of_another_type(bound: object) -> None:
    """A bound that is no int is refused, and a bool is none."""
    with pytest.raises(TypeError, match="must be an int"):
        Mailbox(bound, nobody)  # type: ignore[arg-type]


def test_no_mailbox_without_an_event_loop() -> None:
    """Outside of an event loop there is no mailbox."""
    with pytest.raises(RuntimeError):
        Mailbox(1, nobody)


# Together with replies, as an actor uses it


async def serve(mailbox: Mailbox[tuple[int, Reply[int | Exception]]], decided: list[int]) -> None:
    """Decide every request of a batch, then release the replies, until closed."""
    while True:
        try:
            batch = await receive(mailbox)
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
    mailbox: Mailbox[tuple[int, Reply[int | Exception]]] = Mailbox(bound, nobody)
    lane = mailbox.lane()
    new_reply = reply_factory()
    answers: dict[int, int | Exception] = {}
    decided: list[int] = []

    async def ask(client: int) -> None:
        for number in range(client * 5, client * 5 + 5):
            reply = new_reply()
            lane.put((number, reply))
            answers[number] = await reply

    async with anyio.create_task_group() as tg:
        tg.start_soon(serve, mailbox, decided)
        async with anyio.create_task_group() as clients:
            for client in range(20):
                clients.start_soon(ask, client)
        mailbox.close()
    assert {number: number * 10 for number in range(100)} == answers
    assert list(range(100)) == sorted(decided)


async def test_a_request_given_up_is_not_decided() -> None:
    """The request of an asker cancelled while it was queued is dropped, others are not."""
    mailbox: Mailbox[tuple[int, Reply[int | Exception]]] = Mailbox(1, nobody)
    lane = mailbox.lane()
    new_reply = reply_factory()
    scope = anyio.CancelScope()
    answers: list[int | Exception] = []
    decided: list[int] = []

    async def ask(number: int) -> None:
        reply = new_reply()
        lane.put((number, reply))
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
    mailbox: Mailbox[tuple[int, Reply[int | Exception]]] = Mailbox(2, nobody)
    lane = mailbox.lane()
    new_reply = reply_factory()
    failed: list[int] = []

    async def ask(number: int) -> None:
        reply = new_reply()
        lane.put((number, reply))
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
