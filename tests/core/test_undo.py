"""What takes back an answer that nobody got."""

from typing import Final, get_args

import pytest

from ioasid.core import (
    ActivateSet,
    AdjustGroup,
    AdjustSet,
    Alloc,
    AllocGroup,
    AllocMany,
    AllocSet,
    AllocSystemSet,
    AttachData,
    AttachSpid,
    CancelCapacity,
    CancelRange,
    CloseSession,
    Detach,
    DetachData,
    DetachSpid,
    EventKind,
    Evict,
    Explain,
    ExportSet,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    Free,
    FreeGroup,
    FreeMany,
    FreeSet,
    FreezeSet,
    Get,
    ImportSet,
    InstallCapacity,
    IoasidRange,
    ListGroups,
    ListHolders,
    Listing,
    ListSet,
    ListSets,
    Notify,
    OpenSession,
    Put,
    Request,
    ReserveCapacity,
    ReserveRange,
    SessionOpened,
    SetExport,
    Subscribe,
    Subscribed,
    SuspendSession,
    TakeSnapshot,
    TakeStatistics,
    ThawSet,
    TokenType,
    Unsubscribe,
    undo_of,
)
from tests.core.helpers import BINDING, Driver, expect, state

RANGES: Final = (IoasidRange(3, 5),)

UNDONE: Final[dict[Request, Request]] = {
    Alloc(0): Free(3, generation=3),
    AllocMany(0, 3): FreeMany(0, RANGES, 3, missing_ok=True),
    AllocSet(None, 4, TokenType.NULL): FreeSet(2),
    ImportSet(SetExport(None, TokenType.NULL, 4, (), ())): FreeSet(2),
    Get(1): Put(1),
    FindBySpid(0, 100, get=True): Put(1, generation=1),
}
"""What only its answer names, and what takes it back from an allocator as `prepared` makes it."""

STANDING: Final[tuple[Request, ...]] = (
    *(ReserveCapacity(3), CancelCapacity(1), ReserveRange(30, 33), CancelRange(40, 41)),
    *(AllocGroup("g-2", 4), AdjustGroup("g-1", 6), FreeGroup("g-1"), ListGroups()),
    *(AllocSystemSet(4), AllocSet("vm-2", 4), AdjustSet(0, 17), FreeSet(0), FindSid(1)),
    *(FindSet("vm-1"), ListSet(0), Free(1), FreeMany(0, (IoasidRange(1, 2),)), Put(2), Find(1)),
    *(AttachData(2, 7), DetachData(1), AttachSpid(2, 101), DetachSpid(1), FindBySpid(0, 100)),
    *(Notify(1, EventKind.BIND), Evict("kvm"), TakeStatistics(), TakeSnapshot()),
    *(Explain(1), ListSets(), ListHolders(), FreezeSet(0), ThawSet(1), ExportSet(1)),
    *(ImportSet(SetExport("vm-2", TokenType.MM, 4, (), ())), ActivateSet(0)),
)
"""What can be found again by what its asker knew before, or changes nothing."""


def prepared() -> Driver:
    """An allocator in which every request of both lists can be carried out."""
    driver = Driver()
    driver.set()
    driver.bound()
    driver.alloc()
    for request in (
        *(AttachData(1, 7), Get(2), AllocGroup("g-1", 4)),
        *(ReserveCapacity(2), ReserveRange(40, 43), AllocSet("vm-9", 4), FreezeSet(1)),
    ):
        driver.ask(request)
    driver.session("kvm")
    return driver


def test_a_session_that_nobody_knows_of_is_closed() -> None:
    """A session that was opened and not learned of leaves nothing when that is undone."""
    driver = Driver()
    before = driver.figures()
    request = OpenSession("kvm")
    answer = expect(SessionOpened, driver.ask(request))
    undo = undo_of(driver.core.session, request, answer)
    assert (answer.session, CloseSession()) == undo
    driver.core.handle(*undo)
    assert before == driver.figures()


def test_a_session_that_came_back_is_suspended() -> None:
    """A holder that came back and never learned of it is suspended again, with all it had."""
    driver = Driver()
    driver.set()
    ioasid = driver.alloc()
    kvm = driver.subscribe("kvm", kinds=BINDING, hold=True)
    driver.bind(ioasid)
    driver.crash("kvm")
    before = state(driver.core)
    request = OpenSession("kvm")
    answer = expect(SessionOpened, driver.ask(request))
    undo = undo_of(driver.core.session, request, answer)
    assert (answer.session, SuspendSession()) == undo
    driver.core.handle(*undo)
    after = state(driver.core)
    assert (before.sets, before.holders) == (after.sets, after.holders)
    assert [kvm] == [each.subscription for each in driver.core.lagging()]


def test_a_subscription_that_nobody_knows_of_ends() -> None:
    """A new subscription is ended, and one that was taken up again counts as crashed again."""
    driver = Driver()
    request = Subscribe(kinds=frozenset(EventKind))
    assert (1, Unsubscribe(4)) == undo_of(1, request, Subscribed(4, resumed=False))
    assert (1, Detach(4)) == undo_of(1, request, Subscribed(4, resumed=True))
    before = driver.figures()
    answer = expect(Subscribed, driver.ask(request))
    undo = undo_of(driver.core.session, request, answer)
    assert undo is not None
    driver.core.handle(*undo)
    assert before == driver.figures()


@pytest.mark.parametrize("request_", UNDONE, ids=repr)
def test_what_only_its_answer_names_is_undone(request_: Request) -> None:
    """IDs and sets without a token are freed, references put; all is as it was before."""
    driver = prepared()
    before = driver.figures(), driver.find(1), driver.find(2), driver.ask(ListSet(0))
    undo = undo_of(driver.core.session, request_, driver.ask(request_))
    assert (driver.core.session, UNDONE[request_]) == undo
    driver.ask(UNDONE[request_])
    after = driver.figures(), driver.find(1), driver.find(2), driver.ask(ListSet(0))
    assert before[1:] == after[1:]
    for name in ("available", "sets", "active", "free_pending"):
        assert getattr(before[0], name) == getattr(after[0], name)


def test_what_is_left_of_many_ids_is_undone() -> None:
    """What somebody freed meanwhile, and has again, stays; quarantine goes on; all others go."""
    driver = prepared()
    request = AllocMany(0, 5)
    undo = undo_of(driver.core.session, request, driver.ask(request))
    assert undo is not None
    driver.ask(FreeMany(0, (IoasidRange(3, 4),)))
    driver.ask(Get(6))
    driver.ask(Free(6))
    assert 3 == driver.alloc()
    driver.core.handle(*undo)
    listed = expect(Listing, driver.ask(ListSet(0)))
    assert [1, 6] == [each.ioasid for each in listed.ioasids]
    assert [(2, 2), (3, 3)] == [(each.first, each.last) for each in listed.ranges]
    driver.ask(Put(6))
    assert 4 == driver.alloc()


def test_an_undone_allocation_is_of_one_asker() -> None:
    """What others have of the same set, or hold on the same ID, stays as it is."""
    driver = prepared()
    driver.ask(Get(1), "kvm")
    get = Get(1)
    undo = undo_of(driver.core.session, get, driver.ask(get))
    assert {"kvm": 1, "host": 1} == driver.find(1).references
    assert undo is not None
    driver.core.handle(*undo)
    assert {"kvm": 1} == driver.find(1).references
    assert {"host": 1} == driver.find(2).references


@pytest.mark.parametrize("request_", STANDING, ids=repr)
def test_what_can_be_found_again_stands(request_: Request) -> None:
    """Frees, binds, data, limits, and whatever has a name need no answer to be found again."""
    driver = prepared()
    assert None is undo_of(driver.core.session, request_, driver.ask(request_))


def test_a_capacity_stands() -> None:
    """It can be installed only before anything else."""
    driver = Driver()
    request = InstallCapacity(32)
    assert None is undo_of(driver.core.session, request, driver.ask(request))


def test_every_request_is_decided_upon() -> None:
    """Each request there is is undone or stands, or has a test of its own here."""
    listed = {type(each) for each in (*UNDONE, *STANDING)}
    own = {OpenSession, Subscribe, InstallCapacity}
    nobody_waits_for = {type_.__name__ for type_ in {*get_args(Request)} - listed - own}
    assert {
        "Abandon",
        "Acknowledge",
        "CloseSession",
        "Defer",
        "Detach",
        "SuspendAll",
        "SuspendSession",
        "Continue",
        "Tick",
        "Unsubscribe",
    } == nobody_waits_for
