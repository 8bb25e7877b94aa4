"""Resyncs: what stands for all that a subscriber missed, and what it shows."""

import pytest
from msgspec.structs import replace

from ioasid.core import (
    Acknowledge,
    Alloc,
    Allocator,
    AllocMany,
    Answer,
    AttachData,
    Complete,
    Continue,
    Defer,
    DetachData,
    FindBySpid,
    Free,
    FreeMany,
    FreeSet,
    IoasidRange,
    IoasidState,
    Listing,
    ListSet,
    LiveIoasid,
    LiveRange,
    MalformedMessage,
    Notify,
    Request,
    Resync,
    SnapshotRelisting,
    Subscribe,
    Subscribed,
    UnknownIoasid,
    Unsubscribe,
    Waiting,
    Withdraw,
    decode_snapshot,
    encode,
)
from ioasid.core._work import Relisting
from tests.core.helpers import (
    ALLOC,
    BIND,
    BINDING,
    CPU,
    DEVICE,
    FREE,
    UNBIND,
    Driver,
    expect,
)
from tests.core.invariants import Observer
from tests.core.test_histories import History

pytestmark = pytest.mark.usefixtures("two_sets")


def test_at_the_bound_the_queue_becomes_one_resync(driver: Driver) -> None:
    """One message in its hands, the bound in its queue: one more, and a Resync stands for all."""
    kvm = driver.subscribe("kvm", sid=0, queue_size=3)
    ioasids = [driver.alloc() for _ in range(4)]
    assert [("ALLOC", each) for each in ioasids] == driver.shown(kvm)
    first = driver.messages(kvm)[0].seq
    ioasids.append(driver.alloc())
    assert Withdraw(kvm, first) == driver.effects[-1]
    assert [("ALLOC", ioasids[0])] == driver.shown(kvm)
    ioasids.append(driver.alloc())
    driver.free(ioasids[0])
    assert [("ALLOC", ioasids[0])] == driver.shown(kvm)
    driver.acknowledge(kvm, first, "kvm")
    resync = driver.resync(kvm)
    assert ioasids == [each.ioasid for each in resync]
    assert IoasidState.FREE_PENDING is next(iter(resync)).state
    assert 1 == driver.figures().free_pending
    driver.acknowledge(kvm, resync.seq, "kvm")
    assert ("RECLAIM", ioasids[0]) == driver.shown(kvm)[-1]


def test_a_lagging_subscriber_costs_no_memory(driver: Driver) -> None:
    """However much a lagging subscriber misses, one Resync stands for it."""
    kvm = driver.subscribe("kvm", sid=0, queue_size=1)
    ioasid = driver.alloc()
    for _ in range(100):
        driver.bind(ioasid)
        driver.ask(Notify(ioasid, FREE))
        driver.unbind(ioasid)
    lag = driver.figures().lagging[0]
    assert (1, 0, 0) == (lag.queued, lag.deferred, lag.folded)
    driver.finish(kvm, "kvm")
    assert () == driver.figures().lagging


def test_a_resync_shows_an_id_as_of_the_tier(driver: Driver) -> None:
    """What is on its way through higher tiers is not revealed, and follows as an event."""
    cpu = driver.subscribe("cpu", kinds=BINDING, priority=CPU)
    bound = driver.bound(spid=1)
    driver.finish(cpu, "cpu")
    unbound, freed, plain = driver.bound(spid=2), driver.bound(spid=3), driver.alloc()
    driver.finish(cpu, "cpu")
    driver.unbind(unbound)
    driver.free(freed)
    fresh = driver.bound(spid=5)
    late = driver.subscribe("late", priority=DEVICE, replay=True, hold=True)
    shown = {each.ioasid: (each.state, each.spid) for each in driver.resync(late)}
    active = IoasidState.ACTIVE
    assert {
        bound: (active, 1),
        unbound: (active, 2),
        freed: (active, 3),
        plain: (active, None),
        fresh: (active, None),
    } == shown
    for ioasid, references in ((bound, 1), (unbound, 1), (freed, 1), (fresh, 0), (plain, 0)):
        assert references == driver.find(ioasid).references.get("late", 0)
    driver.finish(cpu, "cpu")
    assert [("UNBIND", unbound), ("FREE", freed), ("BIND", fresh)] == driver.shown(late)[1:]
    assert {"late": 1} == driver.find(fresh).references
    driver.finish(late, "late")
    assert ("RECLAIM", freed) == driver.shown(late)[-1]
    assert {} == driver.find(unbound).references


def test_a_resync_grants_no_binding_twice(driver: Driver) -> None:
    """A binding that was granted with its BIND is not granted again by a Resync."""
    kvm = driver.subscribe("kvm", sid=0, kinds=BINDING, hold=True, queue_size=1)
    ioasids = [driver.bound(spid=spid) for spid in range(4)]
    driver.acknowledge(kvm, driver.messages(kvm)[0].seq, "kvm")
    assert 4 == len(list(driver.resync(kvm)))
    driver.finish(kvm, "kvm")
    assert [{"kvm": 1}] * 4 == [driver.find(each).references for each in ioasids]


def test_a_resync_leaves_alone_what_is_in_hand(driver: Driver) -> None:
    """An UNBIND that was set aside keeps its grant until it is acknowledged itself."""
    kvm = driver.subscribe("kvm", sid=0, kinds=BINDING, hold=True, queue_size=1)
    ioasid = driver.bound()
    driver.finish(kvm, "kvm")
    driver.unbind(ioasid)
    unbind = driver.last(kvm).seq
    driver.ask(Defer(kvm, unbind), "kvm")
    for spid in (7, 8):
        driver.bind(driver.alloc(), spid)
    driver.acknowledge(kvm, driver.last(kvm).seq, "kvm")
    resync = driver.resync(kvm)
    driver.acknowledge(kvm, resync.seq, "kvm")
    assert {"kvm": 1} == driver.find(ioasid).references
    driver.acknowledge(kvm, unbind, "kvm")
    assert {} == driver.find(ioasid).references


def test_a_resync_leaves_alone_what_another_ends(driver: Driver) -> None:
    """A binding that a Resync was the first not to show goes with that one, set aside or not."""
    kvm = driver.subscribe("kvm", sid=0, kinds=BINDING, hold=True, queue_size=1)
    ioasid = driver.bound()
    bind = driver.last(kvm).seq
    driver.unbind(ioasid)
    driver.ask(Notify(ioasid, BIND))
    driver.acknowledge(kvm, bind, "kvm")
    first = driver.resync(kvm)
    driver.ask(Defer(kvm, first.seq), "kvm")
    for _ in range(2):
        driver.ask(Notify(ioasid, BIND))
    driver.acknowledge(kvm, driver.last(kvm).seq, "kvm")
    assert first != driver.resync(kvm)
    driver.acknowledge(kvm, driver.resync(kvm).seq, "kvm")
    assert {"kvm": 1} == driver.find(ioasid).references
    driver.acknowledge(kvm, first.seq, "kvm")
    assert {} == driver.find(ioasid).references


def test_a_resync_leaves_alone_what_has_yet_to_come(driver: Driver) -> None:
    """The grant of a BIND that has yet to reach the tier outlives a Resync that can't show it."""
    cpu = driver.subscribe("cpu", sid=0, kinds=BINDING, priority=CPU)
    kvm = driver.subscribe("kvm", sid=0, hold=True, queue_size=1)
    ioasid = driver.bound()
    for _ in range(3):
        driver.alloc()
    driver.acknowledge(kvm, driver.messages(kvm)[0].seq, "kvm")
    assert (ioasid, None) == (
        next(iter(driver.resync(kvm))).ioasid,
        next(iter(driver.resync(kvm))).spid,
    )
    driver.finish(kvm, "kvm")
    assert {"kvm": 1} == driver.find(ioasid).references
    driver.finish(cpu, "cpu")
    assert ("BIND", ioasid) == driver.shown(kvm)[-1]


def test_who_sets_everything_aside_gets_its_resync_when_there_is_room(driver: Driver) -> None:
    """What is set aside counts against the bound: the Resync comes with an acknowledgement."""
    kvm = driver.subscribe("kvm", sid=0, queue_size=2)
    for _ in range(3):
        driver.alloc()
        driver.ask(Defer(kvm, driver.last(kvm).seq), "kvm")
    driver.alloc()
    assert Withdraw(kvm, None) in driver.effects
    assert 3 == len(driver.messages(kvm))
    driver.acknowledge(kvm, driver.messages(kvm)[0].seq, "kvm")
    assert 4 == len(list(driver.resync(kvm)))
    driver.finish(kvm, "kvm")
    assert () == driver.figures().lagging


def test_deferring_the_last_message_in_hand_brings_the_resync(driver: Driver) -> None:
    """A lagging subscriber that comes back without acknowledging gets its Resync too."""
    kvm = driver.subscribe("kvm", sid=0, queue_size=1)
    for _ in range(3):
        driver.alloc()
    first = driver.messages(kvm)[0].seq
    driver.ask(Defer(kvm, first), "kvm")
    assert 3 == len(list(driver.resync(kvm)))
    driver.finish(kvm, "kvm")


def test_a_resync_is_replaced_by_the_next(driver: Driver) -> None:
    """A Resync that waits in a queue at its bound is folded into the next one."""
    kvm = driver.subscribe("kvm", sid=0, queue_size=1, hold=True)
    ioasid = driver.bound()
    driver.alloc()
    first = driver.messages(kvm)[0].seq
    driver.acknowledge(kvm, first, "kvm")
    driver.ask(Defer(kvm, driver.messages(kvm)[-1].seq), "kvm")
    driver.free(ioasid)
    for _ in range(4):
        driver.alloc()
        driver.ask(Defer(kvm, driver.messages(kvm)[-1].seq), "kvm")
    driver.finish(kvm, "kvm")
    driver.finish(kvm, "kvm")
    driver.refused(UnknownIoasid, Free(ioasid))


def test_a_crash_with_a_resync_in_hand_acknowledges_nothing(driver: Driver) -> None:
    """What that Resync stood for is acknowledged with the next one, and not before."""
    terms = {"sid": 0, "kinds": BINDING, "priority": CPU, "hold": True, "queue_size": 1}
    kvm = driver.subscribe("kvm", **terms)
    last = driver.subscribe("last", kinds=BINDING)
    ioasids = [driver.bound(spid=spid) for spid in range(3)]
    driver.acknowledge(kvm, driver.messages(kvm)[0].seq, "kvm")
    assert 3 == len(list(driver.resync(kvm)))
    driver.crash("kvm")
    assert 2 == driver.core.lagging()[0].folded
    driver.come_back("kvm")
    driver.ask(Subscribe(**terms), "kvm")  # type: ignore[arg-type]
    assert [("BIND", ioasids[0])] == driver.shown(last)
    driver.acknowledge(kvm, driver.resync(kvm).seq, "kvm")
    assert [("BIND", each) for each in ioasids] == driver.shown(last)


def test_who_leaves_with_a_resync_in_hand_acknowledges_it(driver: Driver) -> None:
    """Whoever leaves has acknowledged what its Resync stood for, as anything else."""
    cpu = driver.subscribe("cpu", kinds=BINDING, priority=CPU, queue_size=1)
    last = driver.subscribe("last", kinds=BINDING)
    ioasids = [driver.bound(spid=spid) for spid in range(3)]
    driver.acknowledge(cpu, driver.messages(cpu)[0].seq, "cpu")
    assert 3 == len(list(driver.resync(cpu)))
    driver.ask(Unsubscribe(cpu), "cpu")
    assert [("BIND", each) for each in ioasids] == driver.shown(last)


def test_a_resync_has_a_number_of_its_own(driver: Driver) -> None:
    """It is numbered like an event, and the next event follows it."""
    driver.alloc()
    before = driver.figures().seq
    kvm = driver.subscribe("kvm", replay=True)
    driver.alloc()
    assert [before + 1, before + 2] == [each.seq for each in driver.messages(kvm)]


@pytest.mark.parametrize("scope", [{}, {"sid": 0}, {"token": "vm-1"}, {"token": "vm-9"}])
def test_replay(driver: Driver, scope: dict[str, object]) -> None:
    """A late subscriber that asks for it starts with a Resync of its scope."""
    first, second = driver.bound(), driver.alloc(1)
    number = driver.subscribe("kvm", replay=True, hold=True, **scope)
    expected = {"": [first, second], "sid": [first], "token": [first]}["".join(scope)]
    expected = [] if scope == {"token": "vm-9"} else expected
    assert expected == [each.ioasid for each in driver.resync(number)]
    assert [number] == [each.subscription for each in driver.figures().lagging]
    driver.finish(number, "kvm")
    assert () == driver.figures().lagging
    assert ({"kvm": 1} if expected else {}) == driver.find(first).references


def test_without_replay_nothing_is_repeated(driver: Driver) -> None:
    """A late subscriber that does not ask gets neither a Resync nor grants."""
    ioasid = driver.bound()
    kvm = driver.subscribe("kvm", hold=True)
    assert [] == driver.messages(kvm)
    driver.unbind(ioasid)
    driver.finish(kvm, "kvm")
    assert [("UNBIND", ioasid)] == driver.shown(kvm)
    assert {} == driver.find(ioasid).references


# -- in parts ---------------------------------------------------------------------------------

PART = 4
PLAIN = range(2000, 2020)
BOUND = range(1010, 1040)
"""IDs at the border of two words: their Resync takes parts."""


@pytest.fixture
def wide() -> Driver:
    """An allocator that deals with few IDs at once: a set of plain ones, and one that is bound."""
    driver = Driver(4096)
    driver.core = Allocator(4096, part=PART)
    driver.sessions = {"host": driver.core.session}
    driver.set("vm-1", 100)
    driver.set("vm-2", 100)
    driver.ask(AllocMany(0, len(PLAIN), PLAIN[0]))
    driver.ask(AllocMany(1, len(BOUND), BOUND[0]))
    for ioasid in BOUND:
        driver.bind(ioasid, ioasid)
    return driver


def go_on(driver: Driver, parts: int = 1000) -> None:
    """Let parts be done, as a restored allocator does them too."""
    for _ in range(parts):
        if not driver.core.has_work:
            break
        again = Allocator.restore(decode_snapshot(encode(driver.core.snapshot())))
        driver.core.handle(0, Continue())
        again.handle(0, Continue())
        done = len(driver.effects)
        driver.collect()
        # Who waits for an answer is no part of a snapshot.
        told = [each for each in driver.effects[done:] if not isinstance(each, Complete)]
        assert told == again.drain()
        assert driver.core.snapshot() == again.snapshot()


def truth(driver: Driver, *sids: int) -> list[LiveIoasid]:
    """What there is in sets."""
    return [each for sid in sids for each in expect(Listing, driver.ask(ListSet(sid)))]


def first_resync(driver: Driver, subscription: int) -> Resync:
    """What a subscription was given first."""
    return expect(Resync, driver.messages(subscription)[0])


def test_a_resync_is_made_in_parts(wide: Driver) -> None:
    """Others are served between; it is the first message, and what it shows it grants."""
    late = wide.subscribe("late", kinds=BINDING, hold=True, replay=True)
    assert [] == wide.messages(late)
    go_on(wide, 2)
    assert 2 * PART < sum("late" in wide.find(each).references for each in BOUND) < len(BOUND)
    assert wide.alloc() in range(1, 1010)
    go_on(wide)
    assert truth(wide, 0, 1) == [*wide.resync(late)]
    assert 1 == len(wide.messages(late))
    assert [{"late": 1}] * len(BOUND) == [wide.find(each).references for each in BOUND]
    wide.finish(late, "late")
    assert () == wide.figures().lagging


def test_what_fits_into_a_part_is_there_at_once(wide: Driver) -> None:
    """A Resync that lists no more than a part is delivered with the request."""
    late = wide.subscribe("late", sid=0, replay=True)
    assert truth(wide, 0) == [*wide.resync(late)]
    assert not wide.core.has_work


@pytest.mark.parametrize("parts", [0, 1, 3, 4, 6])
def test_a_resync_follows_what_happens_meanwhile(wide: Driver, parts: int) -> None:
    """Wherever it has come to, it shows what there is when it is delivered, and nothing follows."""
    late = wide.subscribe("late", hold=True, replay=True, queue_size=1)
    go_on(wide, parts)
    for ioasid in (BOUND[0], BOUND[5], BOUND[-1]):
        wide.unbind(ioasid)
    for ioasid in (BOUND[1], BOUND[-2]):
        wide.ask(AttachData(ioasid, "data"))
        wide.free(ioasid)
    wide.bind(BOUND[0], 5)
    for ioasid in (BOUND[5], BOUND[-5], 2003, 2004):
        wide.ask(AttachData(ioasid, "data"))
    wide.ask(DetachData(2004))
    wide.bind(2008, 1)
    wide.unbind(2008)
    wide.bind(2011, 1)
    for ioasid in (2000, 2005, 2015, 2019):
        wide.free(ioasid)
    wide.ask(AllocMany(0, 3, 1000, 1009))
    wide.ask(AllocMany(1, 9, 990, 3000))
    third = wide.set("vm-3", 8)
    wide.alloc(third)
    assert [] == wide.messages(late)
    go_on(wide)
    assert truth(wide, 0, 1, third) == [*wide.resync(late)]
    assert 1 == len(wide.messages(late))
    for each in truth(wide, 0, 1):
        if each.state is IoasidState.ACTIVE:
            held = "late" in wide.find(each.ioasid).references
            assert held == (each.spid is not None)
    wide.finish(late, "late")
    go_on(wide)
    assert [] == [each for each in truth(wide, 0, 1) if each.state is IoasidState.FREE_PENDING]


def test_what_nobody_is_told_of_is_in_a_resync(wide: Driver) -> None:
    """Of kinds that it does not get, a subscriber sees the results, in parts as at once."""
    late = wide.subscribe("late", kinds={UNBIND}, replay=True)
    go_on(wide, 2)
    wide.ask(AllocMany(0, 5, 1900))
    wide.ask(AllocMany(0, 5, 1015))
    wide.ask(FreeMany(0, (IoasidRange(2001, 2003), IoasidRange(2018, 2019))))
    wide.bind(2010, 1)
    wide.free(2011)
    wide.ask(FreeMany(0, (IoasidRange(2004, 2004),)))
    go_on(wide)
    assert truth(wide, 0, 1) == [*wide.resync(late)]


def test_a_resync_in_parts_is_not_ahead_of_its_tier(wide: Driver) -> None:
    """What a higher tier has yet to acknowledge is not shown; when it has, it is, and once."""
    cpu = wide.subscribe("cpu", kinds=BINDING, priority=CPU, queue_size=100)
    late = wide.subscribe("late", kinds=BINDING, hold=True, replay=True)
    go_on(wide, 3)
    first, last = BOUND[0], BOUND[-1]
    for ioasid in (first, last):
        wide.unbind(ioasid)
    go_on(wide, 1)
    wide.acknowledge(cpu, wide.messages(cpu)[0].seq, "cpu")
    go_on(wide)
    shown = {each.ioasid: each.spid for each in wide.resync(late)}
    assert (None, last) == (shown[first], shown[last])
    assert ({}, {"late": 1}) == (wide.find(first).references, wide.find(last).references)
    wide.finish(cpu, "cpu")
    assert [("UNBIND", last)] == wide.shown(late)[1:]
    wide.finish(late, "late")
    assert {} == wide.find(last).references


@pytest.mark.parametrize("parts", [0, 3, 6])
def test_who_ends_before_its_resync_is_delivered(wide: Driver, parts: int) -> None:
    """Nothing is made for it any more, and what it was granted meanwhile is dropped."""
    late = wide.subscribe("late", kinds=BINDING, hold=True, replay=True)
    go_on(wide, parts)
    wide.ask(Unsubscribe(late), "late")
    go_on(wide)
    assert [] == wide.messages(late)
    assert [{}] * len(BOUND) == [wide.find(each).references for each in BOUND]
    assert not wide.core.has_work


@pytest.mark.parametrize("parts", [0, 3, 6])
def test_who_crashes_before_its_resync_is_delivered(wide: Driver, parts: int) -> None:
    """It was shown nothing: what ends while it is away keeps nothing back, and it begins again."""
    terms = Subscribe(kinds=BINDING, hold=True, replay=True)
    late = expect(Subscribed, wide.ask(terms, "late")).subscription
    go_on(wide, parts)
    wide.crash("late")
    assert not wide.core.has_work
    wide.unbind(BOUND[0])
    wide.free(BOUND[1])
    assert {} == wide.find(BOUND[0]).references
    wide.come_back("late")
    wide.ask(terms, "late")
    go_on(wide)
    assert truth(wide, 0, 1) == [*wide.resync(late)]
    wide.finish(late, "late")
    go_on(wide)
    wide.refused(UnknownIoasid, Free(BOUND[1]))


def test_a_resync_in_parts_takes_what_was_missed_with_it(wide: Driver) -> None:
    """A grant of what was seen and ended unseen goes with the Resync, however long it takes."""
    kvm = wide.subscribe("kvm", kinds=BINDING, hold=True, replay=True, queue_size=2)
    go_on(wide)
    wide.acknowledge(kvm, wide.resync(kvm).seq, "kvm")
    for ioasid in BOUND[:5]:
        wide.unbind(ioasid)
    wide.acknowledge(kvm, wide.last(kvm).seq, "kvm")
    go_on(wide, 3)
    for ioasid in BOUND[-3:]:
        wide.unbind(ioasid)
    assert [{"kvm": 1}] * 3 == [wide.find(each).references for each in BOUND[-3:]]
    go_on(wide)
    wide.acknowledge(kvm, wide.resync(kvm).seq, "kvm")
    go_on(wide)
    held = [each for each in BOUND if "kvm" in wide.find(each).references]
    assert [*BOUND[5:-3]] == held


def test_what_is_set_aside_may_be_acknowledged_while_a_resync_is_made(wide: Driver) -> None:
    """It changes nothing of the Resync, which begins no second time."""
    kvm = wide.subscribe("kvm", kinds=BINDING, queue_size=2)
    wide.unbind(BOUND[0])
    first = wide.last(kvm).seq
    wide.ask(Defer(kvm, first), "kvm")
    for ioasid in BOUND[1:5]:
        wide.unbind(ioasid)
    wide.acknowledge(kvm, wide.last(kvm).seq, "kvm")
    go_on(wide, 2)
    wide.acknowledge(kvm, first, "kvm")
    go_on(wide)
    assert truth(wide, 0, 1) == [*wide.resync(kvm)]
    assert [("UNBIND", BOUND[0]), ("UNBIND", BOUND[1])] == wide.shown(kvm)[:-1]
    wide.finish(kvm, "kvm")
    assert () == wide.figures().lagging


def test_a_set_that_goes_while_a_resync_is_made(wide: Driver) -> None:
    """Its IDs are shown no more; who subscribes to it by number is told nothing."""
    late = wide.subscribe("late", replay=True, kinds={ALLOC})
    mine = wide.subscribe("mine", sid=1, replay=True, kinds={ALLOC})
    token = wide.subscribe("token", token="vm-2", replay=True, kinds={ALLOC})
    go_on(wide, 5)
    for ioasid in BOUND:
        wide.free(ioasid)
    wide.ask(FreeSet(1))
    assert [(mine, False)] == [(number, bool(wide.messages(number))) for number, _ in wide.ended()]
    go_on(wide)
    assert (truth(wide, 0), []) == ([*wide.resync(late)], [*wide.resync(token)])


def test_resyncs_that_are_made_are_kept_apart(wide: Driver) -> None:
    """Several subscribers begin at once: each is shown its own scope."""
    scopes: list[dict[str, object]] = [{}, {"sid": 1}, {"token": "vm-2"}, {"token": "vm-9"}]
    numbers = [wide.subscribe(f"vm-{at}", replay=True, **each) for at, each in enumerate(scopes)]
    go_on(wide, 3)
    wide.free(2000)
    wide.unbind(BOUND[3])
    go_on(wide)
    expected = [truth(wide, 0, 1), truth(wide, 1), truth(wide, 1), []]
    assert expected == [[*first_resync(wide, each)] for each in numbers]


def test_lives_in_no_order_are_listed_in_parts(wide: Driver) -> None:
    """Plain IDs whose generations make a range each count as others do."""
    wide.ask(AllocMany(0, 10, 3100))
    for ioasid in (*reversed(PLAIN), *range(3109, 3099, -1)):
        wide.free(ioasid)
        wide.ask(Alloc(0, ioasid, ioasid))
    late = wide.subscribe("late", sid=0, replay=True)
    assert [] == wide.messages(late)
    go_on(wide)
    assert len(PLAIN) + 10 == len(wide.resync(late).ranges)


def test_resyncs_that_show_the_same_are_equal() -> None:
    """How plain IDs are divided into ranges says nothing."""
    whole = Resync(7, (), (LiveRange(1, 4, 0, None, 5, 1),))
    parts = Resync(7, (), (LiveRange(1, 1, 0, None, 5, 0), LiveRange(2, 4, 0, None, 6, 1)))
    other = Resync(7, (), (LiveRange(1, 1, 0, None, 5, 0), LiveRange(2, 4, 0, None, 7, 1)))
    assert whole == parts
    assert hash(whole) == hash(parts)
    assert whole != other
    assert whole != Resync(8, (), whole.ranges)
    assert whole != "a Resync"


def test_a_resync_that_contradicts_the_rest_is_refused(wide: Driver) -> None:
    """EBADMSG: nobody is made a Resync that it does not wait for, or two."""
    wide.subscribe("kvm")
    late = wide.subscribe("late", replay=True, hold=True, kinds=BINDING)
    go_on(wide, 3)
    good = wide.core.snapshot()
    (item,) = good.work
    assert isinstance(item, SnapshotRelisting)
    assert late == item.subscription
    for work in (
        (),
        (item, item),
        (replace(item, subscription=late - 1),),
        (replace(item, subscription=9),),
        (replace(item, sid=-1),),
        (replace(item, ioasid=-1),),
        (replace(item, sid=7),),
    ):
        with pytest.raises(MalformedMessage):
            Allocator.restore(replace(good, work=work))


class Patient(Allocator):
    """An allocator that does all parts at once, except those of Resyncs: of them it does some."""

    hurries = False
    """Whether it does those as well."""

    def handle(self, session: int, request: Request) -> Answer:
        """Decide, and do parts of what is left: how many depends on the state alone."""
        answer = super().handle(session, request)
        tables = self._tables
        if session and self.may_change(request) and not isinstance(request, FindBySpid):
            goes_on = self.hurries or tables.seq % 2
            while self.has_work and (
                goes_on or any(type(each) is not Relisting for each in tables.work)
            ):
                super().handle(0, Continue())
                goes_on = self.hurries
        if isinstance(answer, Waiting):
            for each in self._tables.outbox:
                if isinstance(each, Complete) and each.ticket == answer.ticket:
                    self._tables.outbox.remove(each)
                    return each.answer
        return answer


class PartsHistory(History):
    """A history in which Resyncs are made in parts, with anything between."""

    allocator = Patient
    part = 2

    def expect_resync(self, observer: Observer) -> None:
        """It comes later, before anything else: the observer sees to that."""

    def come_to_rest(self) -> None:
        """Let every Resync be made, too."""
        for core in (self.core, self.twin):
            if isinstance(core, Patient):
                core.hurries = True
        self.ask("host", Acknowledge(()))
        super().come_to_rest()
        for core in (self.core, self.twin):
            if isinstance(core, Patient):
                core.hurries = False


@pytest.mark.parametrize("seed", range(60))
def test_histories_with_resyncs_in_parts(seed: int) -> None:
    """Whatever happens between the parts of a Resync, every invariant holds at every step."""
    history = PartsHistory(seed)
    for step in range(200):
        history.step()
        if step == 100 and seed % 2:
            history.go_on_as_another()
    history.compare_with_the_other()
    history.end()
