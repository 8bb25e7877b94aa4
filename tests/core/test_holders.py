"""Holders: names with a session, or what is left of one."""

import tracemalloc

import pytest

from ioasid.core import (
    Alloc,
    Allocator,
    AllocSet,
    CloseSession,
    Evict,
    Get,
    HolderLive,
    HolderOfAnother,
    NotReferenced,
    OpenSession,
    Put,
    SessionEnded,
    SessionOpened,
    SuspendAll,
    SuspendSession,
    UnknownHolder,
    UnknownIoasid,
)
from tests.core.helpers import (
    BINDING,
    Driver,
    expect,
    refused,
)

pytestmark = pytest.mark.usefixtures("two_sets")


def test_sessions() -> None:
    """The first session is the host's; others join by name, numbers are never used again."""
    core = Allocator(8, holder="agent")
    opened = expect(SessionOpened, core.handle(core.session, OpenSession("kvm")))
    assert (False, ()) == (opened.resumed, opened.references)
    assert core.session != opened.session
    refused(core, HolderLive, OpenSession("agent"), core.session, name="agent")
    refused(core, UnknownHolder, Evict("nobody"), core.session, name="nobody")
    core.handle(opened.session, Evict("kvm"))
    again = expect(SessionOpened, core.handle(0, OpenSession("kvm")))
    assert opened.session < again.session
    with pytest.raises(HolderLive):
        core.handle(0, OpenSession("kvm"))


def test_names_are_unique_among_live_sessions(driver: Driver) -> None:
    """A name is taken while a session has it, and free again when the session left."""
    driver.session("kvm")
    for name in ("kvm", "host"):
        driver.refused(HolderLive, OpenSession(name), name=name)
    driver.ask(CloseSession(), "kvm")
    driver.refused(SessionEnded, CloseSession(), "kvm", session=driver.sessions["kvm"])
    assert not driver.come_back("kvm").resumed


def test_a_suspended_holder_belongs_to_whom_it_was_created_for(driver: Driver) -> None:
    """It comes back for its owner, or who is trusted, in a restored allocator as well."""
    core, ioasid = driver.core, driver.alloc()
    session = expect(SessionOpened, core.handle(0, OpenSession("vtd", 7))).session
    core.handle(session, Get(ioasid))
    with pytest.raises(HolderLive):
        core.handle(0, OpenSession("vtd", 8))
    core.handle(session, SuspendSession())
    core = Allocator.restore(core.snapshot())
    before = core.snapshot()
    with pytest.raises(HolderOfAnother, match="vtd"):
        core.handle(0, OpenSession("vtd", 8))
    assert before == core.snapshot()
    for owner in (None, 7):
        opened = expect(SessionOpened, core.handle(0, OpenSession("vtd", owner)))
        assert (True, ((ioasid, 1),)) == (opened.resumed, opened.references)
        core.handle(0, SuspendAll())
    # What was nobody's is not for who comes first, and a name that was left is.
    session = expect(SessionOpened, core.handle(0, OpenSession("kvm"))).session
    core.handle(session, Get(ioasid))
    core.handle(0, SuspendAll())
    with pytest.raises(HolderOfAnother):
        core.handle(0, OpenSession("kvm", 0))
    opened = expect(SessionOpened, core.handle(0, OpenSession("vtd", 7)))
    core.handle(opened.session, CloseSession())
    assert not expect(SessionOpened, core.handle(0, OpenSession("vtd", 8))).resumed


@pytest.mark.parametrize("many", [2, 8, 9, 40])
def test_however_many_have_an_id(driver: Driver, many: int) -> None:
    """Each has what it took and was granted, whoever came and went before."""
    ioasid = driver.alloc()
    names = [f"vm-{number}" for number in range(many)]
    for name in names:
        driver.subscribe(name, kinds=BINDING, hold=True)
        driver.ask(Get(ioasid), name)
    driver.bind(ioasid, 7)
    assert dict.fromkeys(names, 2) == driver.find(ioasid).references
    assert driver.core.snapshot() == Allocator.restore(driver.core.snapshot()).snapshot()
    for name in names[::2]:
        driver.ask(Put(ioasid), name)
        driver.refused(NotReferenced, Put(ioasid), name, holder=name, ioasid=ioasid)
    left = {name: 1 if name in names[::2] else 2 for name in names}
    assert left == driver.find(ioasid).references
    driver.free(ioasid)
    for name in reversed(names):
        driver.ask(Evict(name))
    driver.refused(UnknownIoasid, Get(ioasid))


def test_many_grants_of_one_holder(driver: Driver) -> None:
    """A holder with several subscriptions has as many grants, and loses one at a time."""
    ioasid = driver.alloc()
    for number in range(10):
        driver.subscribe(f"vm-{number}", kinds=BINDING, hold=True)
    several = [
        driver.subscribe("kvm", kinds=BINDING, hold=True, **scope)
        for scope in ({}, {"sid": 0}, {"token": "vm-1"})
    ]
    driver.bind(ioasid, 7)
    driver.unbind(ioasid)
    for left, number in zip((2, 1, 0), several, strict=True):
        driver.finish(number, "kvm")
        assert left == driver.find(ioasid).references.get("kvm", 0)
        assert 10 + bool(left) == len(driver.find(ioasid).references)


def test_a_reference_costs_the_same_beside_many() -> None:
    """To put and take one of thousands copies nothing of the others."""
    core = Allocator(8)
    core.handle(core.session, AllocSet("vm-1", 4))
    core.handle(core.session, Alloc(0))
    sessions = [
        expect(SessionOpened, core.handle(0, OpenSession(f"vm-{number}"))).session
        for number in range(5000)
    ]
    for session in sessions:
        core.handle(session, Get(1))
    tracemalloc.start()
    try:
        for session in sessions[2000:2010]:
            core.handle(session, Put(1))
            core.handle(session, Get(1))
        assert tracemalloc.get_traced_memory()[1] < 5000
    finally:
        tracemalloc.stop()
