"""The inventory: what sets and holders there are, page by page."""

import pytest

from ioasid.core import (
    Allocator,
    Defer,
    EventKind,
    Evict,
    FindSet,
    FreeSet,
    Get,
    HolderPage,
    HolderRecord,
    ListHolders,
    ListSets,
    OpenSession,
    Priority,
    SetPage,
    SetRecord,
    Subscribe,
    SubscriptionRecord,
    Tick,
)
from tests.core.helpers import CPU, Driver, expect


def test_list_sets(driver: Driver) -> None:
    """Every set is on one page, as `FindSet` shows it, those that are being freed included."""
    for number in range(5):
        driver.set(f"vm-{number}", 4)
    driver.alloc(1)
    driver.ask(Get(1))
    driver.ask(FreeSet(1))
    driver.ask(FreeSet(3))
    expected = [expect(SetRecord, driver.ask(FindSet(sid=sid))) for sid in (0, 1, 2, 4)]
    assert SetPage(tuple(expected[:3]), 2) == driver.ask(ListSets(limit=3))
    assert SetPage((expected[3],), None) == driver.ask(ListSets(2, 3))
    assert SetPage(tuple(expected), None) == driver.ask(ListSets())
    assert SetPage((), None) == driver.ask(ListSets(4))


def test_list_holders(driver: Driver) -> None:
    """Holders come by name, live and suspended, with what they have and since when."""
    driver.core.handle(0, Tick(10.0))
    driver.set()
    vtd = driver.subscribe("vtd", priority=Priority.IOMMU, kinds=frozenset((EventKind.FREE,)))
    kvm = driver.subscribe("kvm", token="vm-1", priority=CPU, hold=True)
    driver.bound()
    driver.core.handle(0, Tick(12.0))
    driver.ask(Get(1), "vtd")
    driver.ask(Get(1), "vtd")
    driver.crash("vtd")
    driver.core.handle(0, Tick(15.0))
    (lag,) = driver.figures().lagging
    mine = SubscriptionRecord(kvm, None, "vm-1", tuple(sorted(EventKind)), CPU, True, True, 1, lag)
    theirs = SubscriptionRecord(
        vtd, None, None, (EventKind.FREE,), Priority.IOMMU, False, False, 0, None
    )
    host = HolderRecord("host", driver.core.session, 15.0, 0, 0, 0, ())
    expected = (
        host,
        HolderRecord("kvm", driver.sessions["kvm"], 5.0, 0, 1, 1, (mine,)),
        HolderRecord("vtd", None, 3.0, 1, 0, 1, (theirs,)),
    )
    assert HolderPage(expected, None) == driver.ask(ListHolders())
    assert HolderPage(expected[:2], "kvm") == driver.ask(ListHolders(limit=2))
    assert HolderPage(expected[2:], None) == driver.ask(ListHolders("kvm", 2))
    driver.come_back("vtd")
    back = expect(HolderPage, driver.ask(ListHolders("kvm"))).holders[0]
    assert (driver.sessions["vtd"], 0.0) == (back.session, back.age)
    driver.ask(Evict("vtd"))
    assert HolderPage(expected[:2], None) == driver.ask(ListHolders())


def test_many_subscriptions(driver: Driver) -> None:
    """A page shows at most 1,000 subscriptions, and counts what it leaves out."""
    for name, count in (("a", 700), ("b", 400), ("c", 1200), ("d", 1)):
        for number in range(count):
            driver.core.handle(driver.session(name), Subscribe(token=f"vm-{number}"))
    shown: list[list[tuple[str, int, int]]] = []
    after = None
    while not shown or after is not None:
        page = expect(HolderPage, driver.ask(ListHolders(after)))
        shown.append(
            [(each.holder, each.subscribed, len(each.subscriptions)) for each in page.holders]
        )
        after = page.next
    assert [
        [("a", 700, 700)],
        [("b", 400, 400)],
        [("c", 1200, 1000)],
        [("d", 1, 1), ("host", 0, 0)],
    ] == shown


@pytest.mark.parametrize("request_", [ListSets(), ListHolders()], ids=lambda each: str(type(each)))
def test_readers(driver: Driver, request_: ListSets | ListHolders) -> None:
    """To look changes nothing, and counts as nothing."""
    driver.set()
    kvm = driver.subscribe("kvm", hold=True)
    driver.bound()
    driver.ask(Defer(kvm, driver.messages(kvm)[0].seq), "kvm")
    before = driver.core.snapshot()
    driver.ask(request_)
    assert before == driver.core.snapshot()


def test_a_restored_allocator_has_the_same(driver: Driver) -> None:
    """What there is comes back with a snapshot, in the same order."""
    for name in ("vtd", "kvm", "vdcm"):
        driver.ask(OpenSession(name))
    for token in ("vm-1", "vm-2"):
        driver.set(token, 4)
    core = Allocator.restore(driver.core.snapshot())
    for request in (ListSets(limit=1), ListHolders(limit=3)):
        assert driver.ask(request) == core.handle(core.session, request)
