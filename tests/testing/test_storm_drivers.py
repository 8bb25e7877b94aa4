"""Drivers of one's own in a storm: a right one gets through, a wrong one is found out."""

from collections.abc import Callable

import pytest
from attrs import evolve

from ioasid.actors import HostTap, Session
from ioasid.core import Event, InvalidArgument, Message, Resync
from ioasid.testing import StormAsk, StormDriver, StormGuest, StormReport, StormSettings, storm
from tests.testing.nic import Nic, OpenQueue, freed, nic_driver, open_queue

SMALL = StormSettings(vms=6, devices=2, ops=1500, crash_rate=0.03, seed=5)

pytestmark = pytest.mark.anyio


async def storm_over(kind: type[Nic], ops: int = 1500) -> StormReport:
    """Let it storm over drivers of a kind."""
    return await storm(evolve(SMALL, stall=1, ops=ops), drivers=[nic_driver(kind)])


async def test_a_driver_that_is_right_gets_through() -> None:
    """What is asked of it, its crashes and its replacement are in the storm; all rules hold."""
    report = await storm(SMALL, drivers=[nic_driver()])
    assert {} == report.violations
    assert report.outcomes["nic: open"]["done"] > 20
    assert report.outcomes["nic: send"]["done"] > 10
    assert report.outcomes["nic: crashes"].total() > 0
    assert report.happened["nic restarted"] > 0
    assert report.steps["OpenQueue"] > 20


async def test_a_driver_that_is_given_up_is_replaced() -> None:
    """A driver that is crashed for good and resets its device leaves nothing behind."""
    settings = StormSettings(vms=4, devices=1, ops=1500, crash_rate=0.4, seed=5)
    report = await storm(settings, drivers=[nic_driver()])
    assert {} == report.violations
    assert report.happened["nic given up"] == report.happened["nic replaced"] > 0


class AcknowledgesFirst(Nic):
    """Lets go of an ID at once, and drains its queue then."""

    async def on_event(self, message: Event | Resync) -> None:
        for ioasid in freed(message):
            if ioasid in self.queues and ioasid not in self.deferred:
                self.deferred[ioasid] = []
                await self.session.put(ioasid)

    async def close(self, ioasid: int) -> None:
        del self.queues[ioasid], self.deferred[ioasid]


class TakesNoReference(AcknowledgesFirst):
    """Programs whatever number it is asked to, without a reference."""

    async def on_request(self, message: Message) -> None:
        if isinstance(message, OpenQueue):
            self.queues[message.ioasid] = message.sid
        else:
            await super().on_request(message)

    async def on_event(self, message: Event | Resync) -> None:
        for ioasid in freed(message):
            self.queues.pop(ioasid, None)


class DoesNotReset(Nic):
    """Gives up at the first crash, and is evicted with everything programmed."""

    def __init__(self, tap: HostTap) -> None:
        super().__init__(tap, max_restarts=0)

    async def on_give_up(self, allocator: Session) -> None:
        await allocator.evict(self.holder)


class TakesAnybodys(Nic):
    """Does not ask whose an ID is."""

    async def on_request(self, message: Message) -> None:
        if isinstance(message, OpenQueue):
            await self.session.get(message.ioasid)
            if message.ioasid in self.queues:
                await self.session.put(message.ioasid)
            self.queues[message.ioasid] = message.sid
        else:
            await super().on_request(message)


class Breaks(Nic):
    """Has a defect of the plain kind."""

    async def on_request(self, message: Message) -> None:
        if isinstance(message, OpenQueue) and message.ioasid in self.queues:
            raise KeyError(message.ioasid)
        await super().on_request(message)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (AcknowledgesFirst, "was reclaimed while nic had it programmed"),
        (TakesNoReference, "nic has IOASID"),
        (TakesAnybodys, "programmed for set"),
        (Breaks, "a bug in a handler: nic failed on a request, and goes on (KeyError"),
    ],
)
async def test_a_driver_that_is_wrong_is_found_out(kind: type[Nic], found: str) -> None:
    """A driver that lets go too early, never had it, takes anybody's, or breaks is named."""
    report = await storm_over(kind, 3000)
    assert any(found in each for each in report.violations), report.violations


async def test_a_driver_that_gives_up_has_to_reset() -> None:
    """A driver is crashed for good and replaced; what it leaves programmed is found."""
    report = await storm_over(DoesNotReset)
    assert report.happened["nic replaced"] > 0
    assert any("while nic had it programmed" in each for each in report.violations)
    assert any("there is left: programmed" in each for each in report.violations)


class DoesNotStart(Nic):
    """Never serves."""

    async def on_start(self, *, restarted: bool) -> None:
        raise ValueError("no such device")


async def test_a_driver_that_does_not_start_is_a_violation() -> None:
    """The storm does not begin without a driver: it says why, and does nothing."""
    report = await storm_over(DoesNotStart)
    assert 0 == report.done
    assert "the host ended: ValueError('no such device')" in report.violations


async def gets_it_wrong(nic: Nic, guest: StormGuest) -> None:
    """Objects to the answer."""
    await open_queue(nic, guest)
    raise AssertionError("not what was asked for")


async def test_what_an_ask_asserts_or_does_not_expect_is_a_violation() -> None:
    """An assertion that fails, or a refusal that was not announced, is named with its ask."""
    driver = StormDriver(
        "nic",
        make=lambda _, tap: Nic(tap),
        asks={"open": StormAsk(gets_it_wrong, weight=20)},
        programmed=lambda nic: nic.queues,
    )
    report = await storm(SMALL, drivers=[driver])
    assert any("nic: open raised AssertionError" in each for each in report.violations)
    assert any("nic: open was refused with" in each for each in report.violations)


async def nothing(nic: Nic, guest: StormGuest) -> None:
    """Ask for nothing."""


def driver_with(**asks: StormAsk[Nic]) -> StormDriver[Nic]:
    """A driver of which this is asked."""
    return StormDriver("nic", lambda _, tap: Nic(tap), asks, lambda nic: nic.queues)


@pytest.mark.parametrize(
    ("drivers", "argument"),
    [
        (lambda: [nic_driver(), nic_driver()], "name"),
        (lambda: [driver_with(crashes=StormAsk(nothing))], "asks"),
        (lambda: [driver_with(some=StormAsk(nothing, weight=0))], "weight"),
        (lambda: [driver_with(some=StormAsk(nothing, weight=float("nan")))], "weight"),
        (lambda: [driver_with(some=StormAsk(nothing, weight=float("inf")))], "weight"),
    ],
)
async def test_drivers_of_no_use_are_refused(
    drivers: Callable[[], list[StormDriver[Nic]]], argument: str
) -> None:
    """Two drivers of one name, a name that is taken, and a weight of nothing are refused."""
    with pytest.raises(InvalidArgument) as refused:
        await storm(SMALL, drivers=drivers())
    assert argument == refused.value.argument
