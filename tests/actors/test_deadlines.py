"""Acknowledgement deadlines, on every backend."""

from contextlib import suppress
from itertools import pairwise
from math import inf

import anyio
import pytest
from msgspec.structs import replace

from ioasid.actors import Decision, open_allocator
from ioasid.actors._deadlines import Deadlines
from ioasid.core import (
    Alloc,
    Allocator,
    AllocSet,
    EventKind,
    OpenSession,
    SessionOpened,
    Subscribe,
    Tick,
)
from tests.actors.conftest import Log

pytestmark = pytest.mark.anyio


@pytest.fixture
def virtual_time(anyio_backend_name: str) -> None:
    """Skip a test on a backend whose time passes by itself."""
    if anyio_backend_name != "trio":
        pytest.skip("needs virtual time")


async def test_an_overdue_subscriber_is_named_once_per_message(log: Log) -> None:
    """Past its deadline it is on the log once, and in the statistics for as long as it lags."""
    async with (
        open_allocator() as host,
        host.session("slow") as slow,
        host.session("slower") as slower,
    ):
        await host.alloc_set("vm-1", 8)
        kinds = {EventKind.ALLOC}
        async with (
            slow.subscribe(kinds=kinds, acknowledge_within=0.002) as events,
            slower.subscribe(sid=0, kinds=kinds, acknowledge_within=0.03) as clock,
            host.subscribe(kinds=kinds, acknowledge_within=None) as unhurried,
        ):
            await host.alloc(0)
            await host.alloc(0)
            await log.wait_for("slower", 1)
            lagging = {each.holder: each for each in (await host.statistics()).lagging}
            assert {"slow": True, "slower": True, "host": False} == {
                name: each.overdue for name, each in lagging.items()
            }
            assert lagging["slow"].oldest_age >= 0.03
            first = await anext(events)
            assert (first.seq, 2) == (lagging["slow"].oldest_seq, lagging["slow"].queued)
            second = await anext(events)
            await log.wait_for("slow", 2)
            assert [first.seq, second.seq] == log.seqs("slow")
            assert [first.seq] == log.seqs("slower")
            for each in (events, clock, unhurried):
                each.acknowledge(first)
                each.acknowledge(second)
            figures = await host.statistics()
            assert () == figures.lagging
            assert [first.seq, second.seq] == log.seqs("slow")
            assert [] == log.seqs("host")
    assert "slow (subscription 1 to the system) has not acknowledged message " in log.lines[0]
    assert log.lines[0].endswith("what it holds stays in quarantine until it does or is evicted")


@pytest.mark.usefixtures("virtual_time")
async def test_a_subscriber_in_time_is_not_on_the_log(log: Log) -> None:
    """Who acknowledges before the deadline is never logged, however often it is told."""
    async with open_allocator() as host, host.subscribe(acknowledge_within=10) as events:
        await host.alloc_set("vm-1", 8)
        for ioasid in range(1, 6):
            await host.alloc(0)
            message = await anext(events)
            assert ioasid == getattr(message, "ioasid", None)
            await anyio.sleep(9)
            events.acknowledge(message)
            await anyio.sleep(100)
        assert [] == log.lines
        await host.alloc(0)
        await anyio.sleep(9.9)
        assert [False] == [each.overdue for each in (await host.statistics()).lagging]
        assert [] == log.lines
        await anyio.sleep(0.2)
        assert [True] == [each.overdue for each in (await host.statistics()).lagging]
        assert 1 == len(log.lines)
        await anyio.sleep(1000)
        assert 1 == len(log.lines)


@pytest.mark.usefixtures("virtual_time")
async def test_a_shorter_deadline_is_watched_at_once(log: Log) -> None:
    """A subscriber with a short deadline is found while the alarm is set for a long one."""
    async with open_allocator() as host, host.subscribe(acknowledge_within=1000):
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        await anyio.sleep(1)
        async with host.session("hasty") as hasty, hasty.subscribe(acknowledge_within=1):
            await host.alloc(0)
            await anyio.sleep(2.1)
            assert 1 == len(log.seqs("hasty"))


async def test_a_crashed_subscriber_is_overdue_too(log: Log) -> None:
    """What a suspended holder left unacknowledged is on the log until it is evicted."""
    async with open_allocator() as host:
        await host.alloc_set("vm-1", 8)
        with pytest.raises(ZeroDivisionError):
            async with (
                host.session("kvm") as kvm,
                kvm.subscribe(hold=True, acknowledge_within=0.005),
            ):
                raise ZeroDivisionError
        await host.free(await host.alloc(0))
        await log.wait_for("kvm", 1)
        (lagging,) = (await host.statistics()).lagging
        assert ("kvm", False, True) == (lagging.holder, lagging.attached, lagging.overdue)
        await host.evict("kvm")
        assert () == (await host.statistics()).lagging


def ticks(seen: list[Decision]) -> int:
    """How often the time was posted."""
    return sum(isinstance(each.request, Tick) for each in seen)


@pytest.mark.usefixtures("virtual_time")
async def test_a_deadline_that_passes_idle_wakes_nobody() -> None:
    """Who has a short deadline and nothing to acknowledge does not keep the loop awake."""
    seen: list[Decision] = []
    async with (
        open_allocator(taps=[seen.append]) as host,
        host.subscribe(acknowledge_within=0.001) as events,
    ):
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        events.acknowledge(await anext(events))
        await anyio.sleep(1000)
        assert ticks(seen) <= 2


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize("within", [None, 0.002, 500, 5000])
async def test_a_short_deadline_beside_one_that_lags(within: float | None, log: Log) -> None:
    """However long another subscriber lags, one with a short deadline causes no polling."""
    seen: list[Decision] = []
    async with (
        open_allocator(taps=[seen.append]) as host,
        host.session("slow") as slow,
        slow.subscribe(acknowledge_within=within),
        host.subscribe(acknowledge_within=0.001) as events,
    ):
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        events.acknowledge(await anext(events))
        await anyio.sleep(1000)
        assert ticks(seen) <= 5
        overdue = within is not None and within <= 1000
        assert [1] * overdue == log.seqs("slow")


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize("crashes", [False, True])
async def test_a_deadline_that_comes_and_goes(crashes: bool) -> None:
    """When who had a short deadline is gone nobody looks; once a second for one that crashed."""
    seen: list[Decision] = []
    async with open_allocator(taps=[seen.append]) as host:
        await host.alloc_set("vm-1", 8)
        with suppress(ZeroDivisionError):
            async with (
                host.session("kvm") as kvm,
                kvm.subscribe(hold=True, acknowledge_within=0.001),
            ):
                await host.alloc(0)
                if crashes:
                    raise ZeroDivisionError

        async def ticks_of_ten_seconds() -> int:
            # The first one may still be of before.
            await anyio.sleep(0.01)
            seen.clear()
            for _ in range(1000):
                await host.notify(1, EventKind.BIND)
                await anyio.sleep(0.01)
            return ticks(seen)

        assert (9 if crashes else 0) <= await ticks_of_ten_seconds() <= (11 if crashes else 0)
        if crashes:
            await host.evict("kvm")
            await anyio.sleep(2)
            await host.notify(1, EventKind.BIND)
            await anyio.sleep(2)
            assert 0 == await ticks_of_ten_seconds()


def test_the_shortest_deadline_is_that_of_those_who_are_there() -> None:
    """Of several with one deadline the last one takes it along; without any, nobody looks."""
    deadlines = Deadlines(Allocator(8))
    for number, within in enumerate((5.0, 0.5, 0.5, None)):
        deadlines.begin(number, within)
    paces = [deadlines.pace]
    for number in (1, 3, 2, 0):
        deadlines.end(number)
        paces.append(deadlines.pace)
    assert [0.5, 0.5, 0.5, 5.0, inf] == paces


@pytest.mark.usefixtures("virtual_time")
async def test_a_busy_allocator_is_looked_at_in_time(log: Log) -> None:
    """Who begins to lag while requests keep coming is named when its time is over."""
    async with (
        open_allocator() as host,
        host.session("slow") as slow,
        slow.subscribe(acknowledge_within=1),
    ):
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        for _ in range(11):
            assert [] == log.lines
            await anyio.sleep(0.09)
            await host.notify(1, EventKind.BIND)
        await anyio.sleep(0.02)
        assert [1] == log.seqs("slow")


@pytest.mark.usefixtures("virtual_time")
async def test_one_that_crashed_before_it_lagged(log: Log) -> None:
    """It is named when its time is over, a second late at most."""
    async with open_allocator() as host:
        await host.alloc_set("vm-1", 8)
        with pytest.raises(ZeroDivisionError):
            async with (
                host.session("kvm") as kvm,
                kvm.subscribe(hold=True, acknowledge_within=5),
            ):
                raise ZeroDivisionError
        await anyio.sleep(100)
        await host.alloc(0)
        await anyio.sleep(4.9)
        assert [] == log.lines
        await anyio.sleep(1.1)
        assert [1] == log.seqs("kvm")


@pytest.mark.usefixtures("virtual_time")
async def test_one_that_is_back_in_the_same_batch(log: Log) -> None:
    """Who crashes and is back at once is looked after as before, and no more when it has left."""
    seen: list[Decision] = []
    async with open_allocator(taps=[seen.append]) as host, host.session("kvm") as kvm:
        await host.alloc_set("vm-1", 8)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                async with kvm.subscribe(hold=True, acknowledge_within=5):
                    raise ZeroDivisionError
        async with kvm.subscribe(hold=True, acknowledge_within=5) as events:
            await host.alloc(0)
            await anyio.sleep(7)
            assert events.resumed
            assert 1 == len(log.seqs("kvm"))
        seen.clear()
        for _ in range(5):
            await host.alloc(0)
            await anyio.sleep(7)
        # The one that was set before.
        assert ticks(seen) <= 1


@pytest.mark.usefixtures("virtual_time")
async def test_one_that_crashed_with_its_process(log: Log) -> None:
    """A subscriber of a snapshot that has not come back is named as any other."""
    async with open_allocator() as host:
        await host.alloc_set("vm-1", 8)
        async with host.session("kvm") as kvm, kvm.subscribe(hold=True, acknowledge_within=5):
            snapshot = await host.snapshot()
    async with open_allocator(snapshot=snapshot) as host:
        await host.alloc(0)
        await anyio.sleep(7)
        assert [1] == log.seqs("kvm")


@pytest.mark.usefixtures("virtual_time")
async def test_one_that_lagged_when_its_process_crashed(log: Log) -> None:
    """A subscriber of a snapshot that lags is named although nothing happens any more."""
    async with open_allocator() as host:
        await host.alloc_set("vm-1", 8)
        async with host.session("kvm") as kvm, kvm.subscribe(hold=True, acknowledge_within=5):
            await host.alloc(0)
            snapshot = await host.snapshot()
    async with open_allocator(snapshot=snapshot):
        await anyio.sleep(7)
        assert [1] == log.seqs("kvm")


@pytest.mark.parametrize("index", [0, 4])
@pytest.mark.parametrize("shown", [-86400.0, 0.0, 86400.0])
async def test_ages_go_on_on_the_clock_of_another_process(shown: float, index: int) -> None:
    """What a snapshot has was offered as long before, whatever clocks show and releases counted."""
    core = Allocator(16)
    core.handle(0, Tick(shown - 5))
    core.handle(core.session, AllocSet("vm-1", 8))
    core.handle(core.session, Subscribe(hold=True, acknowledge_within=10.0))
    core.handle(core.session, Alloc(0))
    core.handle(0, Tick(shown))
    assert core.index == 4
    snapshot = replace(core.snapshot(), index=index)
    async with open_allocator(snapshot=snapshot) as host:
        (lagging,) = (await host.statistics()).lagging
        assert not lagging.overdue
        assert 5 <= lagging.oldest_age < 10


async def test_time_does_not_go_back() -> None:
    """The time that is posted when a deadline may have passed is that of its own decision."""
    seen: list[Decision] = []
    posted = anyio.Event()

    def tap(decision: Decision) -> None:
        seen.append(decision)
        if isinstance(decision.request, Tick):
            posted.set()

    async with (
        open_allocator(taps=[tap]) as host,
        host.subscribe(acknowledge_within=0.001),
    ):
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        await posted.wait()
        await host.alloc(0)
    assert all(earlier.time <= later.time for earlier, later in pairwise(seen))
    assert [] == [
        each for each in seen if isinstance(each.request, Tick) and each.request.now != each.time
    ]


def test_a_name_that_is_a_line_of_a_log(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a name has in it, the log has one line of it."""
    core = Allocator()
    opened = core.handle(0, OpenSession("x\n<3>ERROR ioasid: all is lost"))
    assert isinstance(opened, SessionOpened)
    core.handle(opened.session, Subscribe(acknowledge_within=1.0))
    core.handle(core.session, AllocSet("vm-1", 8))
    core.handle(core.session, Alloc(0))
    core.drain()
    core.handle(0, Tick(5.0))
    Deadlines(core).look(5.0)
    (line,) = [each.getMessage() for each in caplog.records]
    assert line.isprintable()
    assert "subscriber 'x\\n<3>ERROR" in line
