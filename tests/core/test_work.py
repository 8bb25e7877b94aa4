"""Work: what is left of requests that are done in parts, in order and in the snapshot."""

from itertools import groupby

import pytest
from msgspec.structs import replace

from ioasid.core import (
    Allocator,
    AllocMany,
    AttachSpid,
    Continue,
    Evict,
    FreeSet,
    Get,
    IoasidRange,
    MalformedMessage,
    SnapshotFreeing,
    SnapshotLeaving,
    SnapshotLettingGo,
    SnapshotLookingAgain,
    Unsubscribe,
)
from tests.core.helpers import BINDING, CPU, Driver


@pytest.fixture
def driver() -> Driver:
    """Two sets of nine bound IDs, each of which takes parts, and a driver that has all of them."""
    driver = Driver()
    driver.core = Allocator(64, part=3)
    driver.sessions = {"host": driver.core.session}
    for sid, token in enumerate(("vm-1", "vm-2")):
        driver.set(token)
        driver.ask(AllocMany(sid, 9))
    kvm = driver.subscribe("kvm", kinds=BINDING, priority=CPU)
    for ioasid in range(1, 19):
        driver.ask(AttachSpid(ioasid, ioasid))
        driver.ask(Get(ioasid), "vdcm")
    driver.ask(FreeSet(1))
    driver.ask(Evict("vdcm"))
    driver.ask(FreeSet(0))
    driver.ask(Unsubscribe(kvm), "kvm")
    return driver


def test_what_is_left_is_in_the_snapshot(driver: Driver) -> None:
    """Each piece says how far it is; of who is told of events less, all that are under way."""
    freeing = [each for each in driver.core.snapshot().work if isinstance(each, SnapshotFreeing)]
    assert [1, 0] == [each.sid for each in freeing]
    assert [18, 9] == [each.ioasids[-1].last for each in freeing]
    assert {2} == {each.until for each in freeing}
    kinds = [type(each) for each in driver.core.snapshot().work]
    assert [
        SnapshotFreeing,
        SnapshotLeaving,
        SnapshotFreeing,
        SnapshotLettingGo,
        SnapshotLookingAgain,
    ] == kinds
    assert [SnapshotLeaving("vdcm")] == [
        each for each in driver.core.snapshot().work if isinstance(each, SnapshotLeaving)
    ]


def test_the_oldest_goes_on_first(driver: Driver) -> None:
    """A piece of work is done before the next one goes on."""
    expected = [(type(each), getattr(each, "sid", None)) for each in driver.core.snapshot().work]
    found = []
    while driver.core.has_work:
        first = driver.core.snapshot().work[0]
        found.append((type(first), getattr(first, "sid", None)))
        driver.core.handle(0, Continue())
        driver.collect()
    assert expected == [each for each, _ in groupby(found)]
    assert len(expected) < len(found)


def test_work_that_contradicts_the_rest_is_refused(driver: Driver) -> None:
    """EBADMSG: nobody leaves or is let go of who is not there, or twice, or of nothing."""
    good = driver.core.snapshot()
    assert good == Allocator.restore(good).snapshot()
    freeing, leaving, _, letting_go, looking = good.work
    bad = (
        (SnapshotFreeing(7, (IoasidRange(1, 2),), 2),),
        (SnapshotFreeing(0, (), 2),),
        (SnapshotFreeing(0, (IoasidRange(1, 2),), 99),),
        (SnapshotLeaving("nobody"),),
        (SnapshotLettingGo(9),),
        (leaving, leaving, letting_go),
        (leaving, letting_go, letting_go),
        (leaving, letting_go, looking, looking),
        (leaving, freeing),
        (letting_go, freeing),
    )
    for work in bad:
        with pytest.raises(MalformedMessage):
            Allocator.restore(replace(good, work=work))
    holders = tuple(replace(each, leaving=True) for each in good.holders)
    with pytest.raises(MalformedMessage):
        Allocator.restore(replace(good, holders=holders))
