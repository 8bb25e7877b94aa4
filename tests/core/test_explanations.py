"""Explanations in words: who has what, for how long, what comes then."""

import pytest

from ioasid.core import (
    Defer,
    Explain,
    Explanation,
    Free,
    Get,
    HeldReferences,
    IoasidState,
    Subscribe,
    Tick,
)
from tests.core.helpers import BIND, CPU, DEVICE, FREE, IOMMU, UNBIND, Driver, expect

BINDING = frozenset((BIND, UNBIND, FREE))


def text(driver: Driver, ioasid: int = 1, now: float | None = None) -> str:
    """An explanation in words."""
    if now is not None:
        driver.core.handle(0, Tick(now))
    return expect(Explanation, driver.ask(Explain(ioasid))).text


def test_the_story_of_a_free(driver: Driver) -> None:
    """It says since when, how many tiers are done, who is waited for, and what comes then."""
    driver.set()
    frees = frozenset((FREE,))
    kvm = driver.subscribe("kvm:vm-1", token="vm-1", priority=CPU, kinds=frees)
    vdcm = driver.subscribe("vdcm:dsa0", priority=DEVICE, kinds=frees)
    driver.subscribe("vtd", priority=IOMMU, kinds=frees)
    driver.bound(spid=101)
    assert "1 (vm-1, spid 101) is in use: it was not freed." == text(driver, now=10.0)
    driver.free(1)
    seq = driver.last(kvm).seq
    assert (
        "1 (vm-1, spid 101) was freed 0 ms ago. 1 of 4 tiers is done. "
        "At CPU, kvm:vm-1 has had FREE in its hands for 0 ms. "
        "Then come DEVICE (vdcm:dsa0) and IOMMU (vtd); then it goes back to the pool."
    ) == text(driver)
    driver.acknowledge(kvm, seq, "kvm:vm-1")
    driver.core.handle(0, Tick(10.001))
    driver.ask(Defer(vdcm, seq), "vdcm:dsa0")
    assert (
        "1 (vm-1, spid 101) was freed 71 ms ago. 2 of 4 tiers are done. "
        "At DEVICE, vdcm:dsa0 deferred FREE 70 ms ago. "
        "Then comes IOMMU (vtd); then it goes back to the pool."
    ) == text(driver, now=10.071)
    driver.acknowledge(vdcm, seq, "vdcm:dsa0")
    assert (
        "1 (vm-1, spid 101) was freed 5 s ago. 3 of 4 tiers are done. At IOMMU, "
        "vtd has had FREE in its hands for 5 s. When that is done, it goes back to the pool."
    ) == text(driver, now=15.5)


def test_references_and_waiting_requests(driver: Driver) -> None:
    """References are counted by holder, one that crashed is said to have, and so are requests."""
    driver.set(None, 4)
    driver.alloc()
    for name in ("vdcm", "vtd", "vtd"):
        driver.ask(Get(1), name)
    driver.crash("vdcm")
    driver.free(1)
    assert (
        "1 (set 0) was freed 0 ms ago. vdcm has 1 reference and is down. vtd has 2 references. "
        "It stays until vdcm is back and done with it, or evicted, and vtd is done; "
        "then it goes back to the pool."
    ) == text(driver)
    driver.ask(Free(1, wait=True))
    assert "vtd has 2 references. 1 request waits for it. It stays until" in text(driver)
    driver.ask(Free(1, wait=True))
    assert " 2 requests wait for it. " in text(driver)


def test_several_events(driver: Driver) -> None:
    """Each event tells its own progress, and one behind another that it comes after that."""
    driver.set()
    driver.subscribe("kvm", priority=CPU, kinds=BINDING)
    driver.subscribe("vtd", priority=IOMMU, kinds=BINDING)
    driver.bound()
    at = "At CPU, kvm has had BIND in its hands for 0 ms. Then comes IOMMU (vtd)."
    first = f"2 of 4 tiers are done. {at}"
    assert f"1 (vm-1, spid 100) is in use: it was not freed. {first}" == text(driver)
    driver.free(1)
    assert (
        f"1 (vm-1, spid 100) was freed 0 ms ago. 2 of 4 tiers are done with BIND. {at} "
        "FREE comes after that. Then come CPU (kvm) and IOMMU (vtd); then it goes back to the pool."
    ) == text(driver)


def test_grants_of_bindings_that_are_over(driver: Driver) -> None:
    """What only a grant waits for is said once, and not for an event that says it already."""
    driver.set()
    kvm = driver.subscribe("kvm", hold=True, kinds=BINDING)
    driver.bound()
    driver.unbind(1)
    driver.free(1)
    assert (
        "1 (vm-1) was freed 0 ms ago. 3 of 4 tiers are done. "
        "At LAST, kvm has had FREE in its queue for 0 ms. "
        "kvm has had the end of its grant in its queue for 0 ms. "
        "When that is done, it goes back to the pool."
    ) == text(driver)
    driver.acknowledge(kvm, driver.last(kvm).seq, "kvm")
    assert (
        "1 (vm-1) was freed 0 ms ago. "
        "kvm has had the end of its grant in its queue for 0 ms. "
        "When that is done, it goes back to the pool."
    ) == text(driver)


@pytest.mark.parametrize("crashes", [False, True])
def test_who_lags_or_crashed(driver: Driver, crashes: bool) -> None:
    """A subscriber whose Resync is still to come lags, or has crashed; then it has the Resync."""
    driver.set()
    vtd = driver.subscribe("vtd", hold=True, kinds=BINDING, queue_size=1)
    for spid in range(3):
        driver.bound(spid=spid)
    if crashes:
        driver.crash("vtd")
    driver.free(3)
    said = "vtd is down and has owed FREE" if crashes else "vtd lags and has not been given FREE"
    stays = "It stays until vtd is back and done with it, or evicted; then"
    then = stays if crashes else "When that is done,"
    assert f"At LAST, {said} for 2 s. {then} it goes back to the pool." in text(driver, 3, now=2.0)
    if not crashes:
        driver.acknowledge(vtd, driver.messages(vtd)[0].seq, "vtd")
        assert "At LAST, vtd has had a Resync for FREE in its hands for 2 s." in text(driver, 3)


def test_many_subscribers(driver: Driver) -> None:
    """Of many in a tier only the first are named, and the others counted."""
    driver.set()
    for number in range(1200):
        name = f"cpu-{number}" if number < 7 else f"last-{number}"
        priority = CPU if number < 7 else IOMMU
        driver.core.handle(
            driver.session(name), Subscribe(priority=priority, kinds=frozenset((FREE,)))
        )
    driver.alloc()
    driver.free(1)
    assert text(driver).endswith(
        "cpu-4 has had FREE in its hands for 0 ms and 2 more. Then comes IOMMU (last-7, last-8, "
        "last-9, last-10, last-11 and 1,188 more); then it goes back to the pool."
    )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 ms"),
        (0.9994, "999 ms"),
        (1.0, "1 s"),
        (119.9, "119 s"),
        (120.0, "2 minutes"),
        (7199.0, "119 minutes"),
        (7200.0, "2 hours"),
        (172_800.0, "2 days"),
        (1e9, "11,574 days"),
    ],
)
def test_times(seconds: float, said: str) -> None:
    """Times are short, in the largest unit of which there are at least two."""
    held = HeldReferences("vtd", False, 1, 0, ())
    state = IoasidState.FREE_PENDING
    found = Explanation(1, 0, "vm-1", None, state, seconds, (held,), (), 0)
    assert found.text.startswith(f"1 (vm-1) was freed {said} ago.")
