"""Who is told of an event: by scope and kind, in order, decided when a tier is reached."""

from typing import Any

import pytest

from ioasid.core import (
    Deliver,
    Event,
    EventKind,
    FreeSet,
    UnknownSet,
    Unsubscribe,
)
from tests.core.helpers import (
    ALLOC,
    BIND,
    BINDING,
    CPU,
    DEVICE,
    FREE,
    IOMMU,
    RECLAIM,
    UNBIND,
    Driver,
    expect,
)

pytestmark = pytest.mark.usefixtures("two_sets")


@pytest.mark.parametrize(
    ("scope", "sees"),
    [
        ({}, [0, 1]),
        ({"sid": 0}, [0]),
        ({"sid": 1}, [1]),
        ({"token": "vm-1"}, [0]),
        ({"token": "vm-2"}, [1]),
        ({"token": "vm-3"}, []),
    ],
)
def test_scopes(driver: Driver, scope: dict[str, object], sees: list[int]) -> None:
    """A subscriber is told of its scope and of nothing else."""
    number = driver.subscribe("kvm", **scope)
    for sid in (0, 1):
        driver.alloc(sid)
    events = [expect(Event, message) for message in driver.messages(number)]
    assert sees == [each.sid for each in events]


@pytest.mark.parametrize("kinds", [{ALLOC}, {BIND, UNBIND}, {FREE}, {RECLAIM, ALLOC}, {*EventKind}])
def test_kinds(driver: Driver, kinds: set[EventKind]) -> None:
    """A subscriber is told of any subset of the kinds."""
    number = driver.subscribe("kvm", kinds=frozenset(kinds))
    ioasid = driver.bound()
    driver.unbind(ioasid)
    driver.free(ioasid)
    driver.finish(number, "kvm")
    assert [kind.value for kind in EventKind if kind in kinds] == [
        kind for kind, _ in driver.shown(number)
    ]


def test_a_subscriber_of_two_scopes_gets_an_event_for_each(driver: Driver) -> None:
    """Subscriptions are independent of each other, also those of one holder."""
    numbers = [driver.subscribe("kvm"), driver.subscribe("kvm", sid=0)]
    ioasid = driver.alloc()
    assert [[("ALLOC", ioasid)]] * 2 == [driver.shown(number) for number in numbers]


@pytest.mark.parametrize("scope", [{}, {"sid": 0}, {"token": "vm-1"}])
def test_who_leaves_is_told_no_more(driver: Driver, scope: dict[str, Any]) -> None:
    """That it was told of such an event before keeps nobody from leaving."""
    driver.subscribe("vtd")
    kvm = driver.subscribe("kvm", **scope)
    first = driver.alloc()
    driver.ask(Unsubscribe(kvm), "kvm")
    driver.alloc()
    assert [("ALLOC", first)] == driver.shown(kvm)


def test_token_before_the_set_during_and_after(driver: Driver) -> None:
    """A token subscription waits for its set, goes back to waiting, and joins the next one."""
    kvm = driver.subscribe("kvm", token="vm-3")
    for _ in range(2):
        before = len(driver.messages(kvm))
        driver.alloc(0)
        assert before == len(driver.messages(kvm))
        sid = driver.set("vm-3", 4)
        ioasid = driver.bound(sid)
        driver.ask(FreeSet(sid))
        driver.finish(kvm, "kvm")
        driver.refused(UnknownSet, FreeSet(sid))
        seen = driver.shown(kvm)[before:]
        assert ["ALLOC", "BIND", "FREE", "RECLAIM"] == [kind for kind, _ in seen]
        assert {ioasid} == {each for _, each in seen}
        assert [] == driver.ended()


def test_who_matches_is_decided_when_the_tier_is_reached(driver: Driver) -> None:
    """Who joins a lower tier in time is told; who joins one that was passed is not."""
    device = driver.subscribe("device", kinds=BINDING, priority=DEVICE)
    driver.bound()
    cpu = driver.subscribe("cpu", kinds=BINDING, priority=CPU)
    second = driver.subscribe("second", kinds=BINDING, priority=DEVICE)
    iommu = driver.subscribe("iommu", kinds=BINDING, priority=IOMMU)
    gone = driver.subscribe("gone", kinds=BINDING, priority=IOMMU)
    driver.ask(Unsubscribe(gone), "gone")
    driver.finish(device, "device")
    assert [0, 0, 1, 0] == [len(driver.messages(each)) for each in (cpu, second, iommu, gone)]


def test_fan_out_is_in_order_of_subscription(driver: Driver) -> None:
    """Within a tier, who subscribed first is served first, whatever the scope."""
    numbers = [
        driver.subscribe("a", sid=0),
        driver.subscribe("b"),
        driver.subscribe("c", token="vm-1"),
        driver.subscribe("d"),
    ]
    before = len(driver.effects)
    driver.alloc()
    (delivered,) = driver.effects[before:]
    assert tuple(numbers) == expect(Deliver, delivered).subscriptions
