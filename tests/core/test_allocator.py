"""The door: sessions that are over, what is no request, and what whoever drives it can look up."""

import ast
import math
from pathlib import Path

import pytest

from ioasid.core import (
    QUARANTINE_AGES,
    Abandon,
    Acknowledge,
    Alloc,
    Allocated,
    Allocator,
    AllocMany,
    AllocSet,
    AttachSpid,
    CloseSession,
    Complete,
    Continue,
    Done,
    EventKind,
    Evict,
    Explain,
    Explanation,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    Free,
    FreeSet,
    FreezeSet,
    Frozen,
    Get,
    HolderPage,
    InvalidArgument,
    IoasidState,
    ListGroups,
    ListHolders,
    ListSet,
    ListSets,
    MalformedMessage,
    OpenSession,
    Priority,
    Put,
    Request,
    ReserveCapacity,
    ReuseOrder,
    SessionEnded,
    SessionOpened,
    Statistics,
    Subscribe,
    SuspendAll,
    TakeSnapshot,
    TakeStatistics,
    ThawSet,
    Tick,
    UnknownIoasid,
    UnknownSubscription,
    UnknownToken,
    Waiting,
    _allocator,
    decode_output,
    encode,
)
from tests.core.examples import REQUESTS
from tests.core.helpers import Driver, expect, refused

ACTIVE = IoasidState.ACTIVE


@pytest.mark.parametrize("capacity", [0, -1, 2**32, True, 1.0, "1", None])
def test_capacity_is_checked(capacity: object) -> None:
    """EINVAL: a capacity outside 1..2^32-1."""
    with pytest.raises(InvalidArgument, match="capacity"):
        Allocator(capacity)  # type: ignore[arg-type]


def test_a_pasid_has_20_bits() -> None:
    """That is how many there are, unless it is said otherwise."""
    figures = expect(Statistics, (core := Allocator()).handle(core.session, TakeStatistics()))
    assert 2**20 == figures.capacity


def test_the_first_session_is_as_old_as_the_clock_says() -> None:
    """EINVAL: no time; else what the first session is since is what the clock showed then."""
    with pytest.raises(InvalidArgument, match="now"):
        Allocator(now="1")  # type: ignore[arg-type]
    core = Allocator(now=5.0)
    core.handle(0, Tick(7.0))
    (host,) = expect(HolderPage, core.handle(core.session, ListHolders())).holders
    assert 2.0 == host.age


DRIVEN: list[Request] = [Tick(1.0), Continue(), Abandon(1), SuspendAll()]
OF_BOTH: list[Request] = [
    *(OpenSession("kvm"), TakeSnapshot(), TakeStatistics(), ListSets(), ListGroups()),
]
"""What whoever drives the allocator asks for: alone, and as any session may."""
LOOKS: list[Request] = [
    *(Find(1), FindSid(1), FindSet("vm-1"), FindBySpid(0, 7), ListSet(0), ListHolders()),
    *(Explain(1), ListSets(), ListGroups(), TakeStatistics()),
]


@pytest.mark.parametrize("request_", LOOKS, ids=lambda each: type(each).__name__)
def test_who_drives_looks_as_a_session_does(request_: Request) -> None:
    """The answer is the same, and nothing is changed by it; what takes a reference is refused."""
    core = Allocator(8)
    for each in (AllocSet("vm-1", 4), Alloc(0), AttachSpid(1, 7)):
        core.handle(core.session, each)
    index = core.index
    assert core.handle(core.session, request_) == core.handle(0, request_)
    refused(core, SessionEnded, FindBySpid(0, 7, get=True), 0, session=0)
    assert index == core.index


@pytest.mark.parametrize("request_", DRIVEN, ids=lambda each: type(each).__name__)
def test_a_session_does_not_drive(driver: Driver, request_: Request) -> None:
    """EBADMSG: the time, another's wait and everybody's crash are no business of a session."""
    error = driver.refused(MalformedMessage, request_)
    assert type(request_).__name__ in str(error)
    assert driver.core.handle(0, request_) is not None


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: type(each).__name__)
def test_who_drives_is_no_session(request_: Request) -> None:
    """ESTALE: session 0 asks for nothing else than to drive, and to look."""
    core = Allocator(8)
    if type(request_) in {type(each) for each in (*DRIVEN, *OF_BOTH)}:
        assert core.handle(0, request_) is not None
        return
    if type(request_) in {type(each) for each in LOOKS} - {FindBySpid}:
        # As of a session: here it finds nothing.
        return
    if isinstance(request_, Acknowledge):
        # What all are done with it says at once; here nobody has a subscription.
        if request_.messages:
            refused(core, UnknownSubscription, request_, 0)
        return
    refused(core, SessionEnded, request_, 0, session=0)


def test_the_index_counts_what_was_carried_out(driver: Driver) -> None:
    """It grows by one with what may have changed something: no refusals, look-ups or time."""
    core = driver.core
    assert 1 == core.index == core.snapshot().index
    driver.set()
    ioasid = driver.alloc()
    assert 3 == core.index
    driver.refused(UnknownIoasid, Free(9))
    for request in (Find(ioasid), FindSid(ioasid), FindSet(sid=0), ListSet(0), TakeStatistics()):
        driver.ask(request)
    driver.ask(TakeSnapshot())
    driver.ask(AttachSpid(ioasid, 7))
    driver.ask(FindBySpid(0, 7))
    assert 4 == core.index
    driver.ask(FindBySpid(0, 7, get=True))
    for driven in (Tick(5.0), Abandon(7), TakeSnapshot()):
        core.handle(0, driven)
    assert 5 == core.index
    core.handle(0, OpenSession("kvm"))
    core.handle(0, SuspendAll())
    assert 7 == core.index == core.snapshot().index
    assert 7 == Allocator.restore(core.snapshot()).index


def test_what_became_possible_happens_once_and_in_one_place() -> None:
    """Only the door settles; a handler that did it would let others in between."""
    source = Path(_allocator.__file__).parent
    found = {
        (path.name, ast.unparse(node.func))
        for path in source.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("settle")
    }
    expected = {
        ("_allocator.py", "self._parts.settle"),
        ("_parts.py", "self._life.settle"),
        ("_restore.py", "settle"),
        ("_consistency.py", "Parts(tables, notifier, life).settle"),
    }
    assert expected == found


def test_many_acknowledgements_are_settled_together(driver: Driver) -> None:
    """What several acknowledgements make possible happens by ID, after the last of them."""
    driver.set()
    kvm = driver.subscribe("kvm", kinds=frozenset((EventKind.FREE, EventKind.RECLAIM)))
    ioasids = [driver.alloc() for _ in range(3)]
    for ioasid in ioasids:
        driver.free(ioasid)
    messages = tuple((kvm, each.seq) for each in reversed(driver.messages(kvm)))
    driver.ask(Acknowledge(messages), "kvm")
    assert [("RECLAIM", each) for each in ioasids] == driver.shown(kvm)[3:]


@pytest.mark.parametrize("session", [0, 99, 2**64 - 1])
def test_ended_sessions(driver: Driver, session: int) -> None:
    """ESTALE: a session that is not live asks for nothing, whatever it asks for."""
    for request in (FreezeSet(0), AllocSet("vm-1", 1), "nonsense"):
        error = refused(driver.core, SessionEnded, request, session)
        assert session == getattr(error, "session", None)


def test_the_last_session_may_leave(driver: Driver) -> None:
    """An allocator without sessions goes on; whoever drives it opens one."""
    driver.set()
    driver.ask(Evict("host"))
    assert SessionOpened(2, False) == driver.core.handle(0, OpenSession("kvm"))


def test_suspend_all(driver: Driver) -> None:
    """Every session crashes at once: who has something is suspended, the others are gone."""
    driver.set()
    driver.ask(Get(driver.alloc()), "kvm")
    driver.session("vtd")
    driver.core.handle(0, SuspendAll())
    assert [("kvm", None)] == [(each.name, each.session) for each in driver.core.snapshot().holders]
    refused(driver.core, SessionEnded, TakeStatistics(), driver.core.session)
    assert driver.opened("kvm").resumed
    assert not driver.opened("host").resumed


def test_record(driver: Driver) -> None:
    """Whoever drives the allocator reads an ID's record without a session."""
    assert driver.core.record(1) is None
    driver.set()
    assert driver.find(driver.bound()) == driver.core.record(1)
    with pytest.raises(InvalidArgument, match="ioasid"):
        driver.core.record(-1)


@pytest.mark.parametrize("stranger", [None, 7, "Alloc", Done(), {"type": "Alloc"}, Alloc, object()])
def test_what_is_no_request(driver: Driver, stranger: object) -> None:
    """EBADMSG: an object that is none of the requests."""
    error = refused(driver.core, MalformedMessage, stranger, driver.core.session)
    assert type(stranger).__name__ in str(error)


def test_statistics(driver: Driver) -> None:
    """All the figures, taken at once."""
    driver.ask(ReserveCapacity(4))
    driver.set(quota=10)
    driver.set("vm-2", 20)
    for _ in range(3):
        driver.alloc()
    driver.ask(Get(1), "kvm")
    driver.free(1)
    driver.subscribe("vtd")
    driver.ask(AttachSpid(2, 7))
    figures = driver.figures()
    assert (64, 5, 29) == (figures.capacity, figures.reserved, figures.available)
    assert (1, 0) == (figures.reserved_numbers, figures.groups)
    assert (2, 0, 2, 1) == (
        figures.sets,
        figures.sets_free_pending,
        figures.active,
        figures.free_pending,
    )
    assert (3, 0, 1) == (figures.sessions, figures.suspended, figures.subscriptions)
    assert (5, 1, 0) == (figures.seq, figures.in_flight, figures.mailbox)
    assert ["vtd"] == [each.holder for each in figures.lagging]


@pytest.mark.parametrize("now", [0, 1.5, -3, 2**63 - 1, 1 - 2**63])
def test_tick(driver: Driver, now: float) -> None:
    """Any clock will do, and ages by it are the same over a wire."""
    driver.core.handle(0, Tick(-(2**62)))
    driver.set()
    driver.subscribe("kvm")
    driver.alloc()
    driver.core.handle(0, Tick(now))
    figures = driver.figures()
    assert [now + 2.0**62] == [each.oldest_age for each in figures.lagging]
    assert figures == decode_output(encode(figures))
    assert float is type(figures.lagging[0].oldest_age)


def test_a_clock_that_goes_back(driver: Driver) -> None:
    """What is in quarantine is then as old as it can be, and what comes later is younger."""
    driver.set()
    driver.subscribe("kvm")
    for now in (50.0, 20.0, 30.0):
        driver.core.handle(0, Tick(now))
        driver.free(driver.alloc())
    driver.core.handle(0, Tick(81.0))
    ages = [expect(Explanation, driver.ask(Explain(ioasid))).age for ioasid in (1, 2, 3)]
    assert [61.0, 61.0, 51.0] == ages
    assert (3, 2) == (
        driver.figures().free_pending,
        driver.figures().quarantine[QUARANTINE_AGES.index(60)],
    )


@pytest.mark.parametrize("now", ["1", None, True, 1j, math.nan, math.inf, 2**63, -(2**63)])
def test_tick_is_checked(driver: Driver, now: object) -> None:
    """EINVAL: a time that is no number, or that no figure could tell."""
    with pytest.raises(InvalidArgument, match="now"):
        driver.core.handle(0, Tick(now))  # type: ignore[arg-type]


def test_a_subscriber_costs_others_nothing(driver: Driver) -> None:
    """An event for one set comes out for that set's subscribers only, however many there are."""
    for number in range(10):
        driver.set(f"vm-{number}", 2)
        driver.ask(Subscribe(sid=number), f"kvm-{number}")
    before = len(driver.effects)
    driver.alloc(7)
    assert 1 == len(driver.effects) - before


def test_which_requests_may_change_something() -> None:
    """What takes, gives or ends something may; what looks up, and the time, may not."""
    core = Allocator(64)
    changing: tuple[Request, ...] = (
        Alloc(0),
        Subscribe(),
        Acknowledge(()),
        CloseSession(),
        SuspendAll(),
        FindBySpid(0, 1, get=True),
    )
    for each in changing:
        assert core.may_change(each), each
    looking: tuple[Request, ...] = (
        Find(1),
        FindBySpid(0, 1),
        ListSets(),
        TakeStatistics(),
        TakeSnapshot(),
        Tick(1.0),
        Abandon(1),
    )
    for each in looking:
        assert not core.may_change(each), each


def test_what_there_is_and_in_which_order() -> None:
    """An allocator tells its capacity and the order in which it gives IDs out."""
    core = Allocator(64, order=ReuseOrder.CYCLIC)
    assert (64, ReuseOrder.CYCLIC) == (core.capacity, core.order)
    assert ReuseOrder.LOWEST is Allocator().order


def test_one_that_takes_the_place_of_another() -> None:
    """Restored from before, it answers those who waited then, and gives no ticket out again."""
    core = Allocator(64)
    session = core.session
    other = core.handle(0, OpenSession("dsa"))
    assert isinstance(other, SessionOpened)
    for sid in (0, 1):
        core.handle(session, AllocSet(f"vm-{sid}", 8))
        core.handle(session, AllocMany(sid, 2))
    for ioasid in (1, 2, 3, 4):
        core.handle(other.session, Get(ioasid))
    waits: dict[int, Free | FreeSet] = {}
    requests: tuple[Free | FreeSet, ...] = (Free(1, wait=True), FreeSet(1, wait=True))
    for request in requests:
        answer = core.handle(session, request)
        assert isinstance(answer, Waiting)
        waits[answer.ticket] = request
    before = core.snapshot()
    core.handle(other.session, Put(1))
    late = core.handle(session, Free(2, wait=True))
    assert isinstance(late, Waiting)
    core.drain()

    again = Allocator.restore(before)
    again.take_place_of(core, waits)
    assert before == again.snapshot()
    done = []
    for ioasid in (1, 3, 4):
        again.handle(other.session, Put(ioasid))
        done.append([each.ticket for each in again.drain() if isinstance(each, Complete)])
    first, second = waits
    assert [[first], [], [second]] == done
    next_one = again.handle(session, Free(2, wait=True))
    assert isinstance(next_one, Waiting)
    assert next_one.ticket > late.ticket


def test_a_freeze_is_answered_by_who_takes_the_place_of_another() -> None:
    """It is stopped, or gone, or runs again, as the set is where it goes on."""
    core = Allocator(64)
    session = core.session
    opened = core.handle(0, OpenSession("vtd"))
    assert isinstance(opened, SessionOpened)
    core.handle(opened.session, Subscribe(priority=Priority.IOMMU))
    core.handle(opened.session, Subscribe(token="vm-0", priority=Priority.DEVICE))
    waits: dict[int, Request] = {}
    for sid in range(4):
        core.handle(session, AllocSet(f"vm-{sid}", 8))
        core.handle(session, Alloc(sid))
        core.handle(session, AttachSpid(1 + sid, 100))
        core.handle(session, FreezeSet(sid))
        waits[10 + sid] = FreezeSet(sid, wait=True)
    core.handle(session, ThawSet(1))
    core.handle(session, FreeSet(2))
    core.handle(session, FreeSet(3, destroy=False))
    waits[14] = FreezeSet(9, wait=True)

    again = Allocator.restore(core.snapshot())
    again.take_place_of(core, waits)
    now = [each for each in again.drain() if isinstance(each, Complete)]
    told = {each.ticket: each.answer for each in now}
    stopped = {number: Frozen(number - 10, True) for number in (12, 13)}
    assert {11: Frozen(1, False), 14: Frozen(9, True)} | stopped == told
    for _ in range(6):
        for told_of in again.snapshot().subscriptions:
            for each in told_of.outstanding:
                again.handle(opened.session, Acknowledge(((told_of.number, each.seq),)))
    late = [(each.ticket, each.answer) for each in again.drain() if isinstance(each, Complete)]
    assert [(10, Frozen(0, True))] == late


def test_quarantine_is_counted_by_age() -> None:
    """From a second to an hour, each with all that are older; what is back is counted no more."""
    core = Allocator(64)
    core.handle(core.session, AllocSet("vm-1", 8))
    held = [expect(Allocated, core.handle(core.session, Alloc(0))).ioasid for _ in range(4)]
    for number, ioasid in enumerate(held):
        core.handle(core.session, Get(ioasid))
        core.handle(0, Tick(100.0 * number))
        core.handle(core.session, Free(ioasid))
    found = []
    for now in (300.0, 301.0, 310.0, 959.5, 10_000.0):
        core.handle(0, Tick(now))
        figures = expect(Statistics, core.handle(core.session, TakeStatistics()))
        assert 4 == figures.free_pending
        found.append(figures.quarantine)
    assert [(3, 3, 3, 0, 0), (4, 3, 3, 0, 0), (4, 4, 3, 0, 0), (4, 4, 4, 4, 0)] == found[:4]
    assert (4, 4, 4, 4, 4) == found[4]
    core.handle(core.session, Put(held[0]))
    again = Allocator.restore(core.snapshot())
    opened = expect(SessionOpened, again.handle(0, OpenSession("vm")))
    figures = expect(Statistics, core.handle(core.session, TakeStatistics()))
    assert (3, 3, 3, 3, 3) == figures.quarantine
    # A snapshot keeps the times, in whichever order its sets are.
    figures = expect(Statistics, again.handle(opened.session, TakeStatistics()))
    assert (3, (3, 3, 3, 3, 3)) == (figures.free_pending, figures.quarantine)


def test_an_allocator_without_a_session() -> None:
    """Whoever drives it opens the first one, and until then there is none."""
    core = Allocator(8, holder=None)
    figures = core.handle(0, TakeStatistics())
    assert isinstance(figures, Statistics)
    assert (0, 0, 0) == (core.session, core.index, figures.sessions)
    opened = core.handle(0, OpenSession("vm"))
    assert SessionOpened(1, resumed=False) == opened
    assert core.snapshot() == Allocator(8, holder="vm").snapshot()


def test_a_look_up_is_refused_without_what_happens_inside() -> None:
    """The error of one tells nothing of how the request was found to be a look-up."""
    core = Allocator(capacity=10)
    with pytest.raises(UnknownToken) as found:
        core.handle(core.session, FindSet("vm-1"))
    assert found.value.__context__ is None
