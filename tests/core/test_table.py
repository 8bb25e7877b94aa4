"""The subscriber's table says what is alive and bound, and what began and ended, in order."""

import os
from typing import Any, Final

import pytest
from attrs import define, field
from msgspec.structs import replace

from ioasid.core import (
    Began,
    Binding,
    Change,
    Ended,
    Event,
    EventKind,
    FreeSet,
    Get,
    InvalidArgument,
    IoasidState,
    Life,
    Listing,
    ListSet,
    LiveIoasid,
    Notify,
    Resync,
    SubscriberTable,
    ended_by,
)
from tests.core.helpers import ALLOC, BIND, BINDING, CPU, DEVICE, FREE, RECLAIM, UNBIND, Driver
from tests.core.invariants import Observer, covers
from tests.core.test_histories import BATCH, STEPS, History

HISTORIES: Final = int(os.environ.get("IOASID_HISTORIES", "50"))

LIFE: Final = Life(7, 0, "vm-1")
BOUND: Final = Binding(7, 101, 0, "vm-1")


def event(kind: EventKind, ioasid: int = 7, spid: int | None = None, *, sid: int = 0) -> Event:
    """An event of vm-1's set."""
    return Event(1, kind, ioasid, sid, "vm-1", spid)


def live(
    ioasid: int, spid: int | None = None, *, pending: bool = False, sid: int = 0
) -> LiveIoasid:
    """An ID of vm-1's set as a Resync shows it."""
    state = IoasidState.FREE_PENDING if pending else IoasidState.ACTIVE
    return LiveIoasid(ioasid, sid, "vm-1", state, spid, None)


def resync(*ioasids: LiveIoasid) -> Resync:
    """A Resync that shows these."""
    return Resync(9, ioasids)


def table_of(state: str) -> SubscriberTable:
    """A table in which ID 7 is absent, unbound or bound to 101."""
    table = SubscriberTable()
    if state != "absent":
        table.update(event(ALLOC))
    if state == "bound":
        table.update(event(BIND, spid=101))
    return table


def given(driver: Driver, subscription: int) -> SubscriberTable:
    """A table that took everything that a subscription was ever given."""
    table = SubscriberTable()
    for message in driver.messages(subscription):
        table.update(message)
    return table


# -- events -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("two_sets")
def test_a_whole_life(driver: Driver) -> None:
    """A life begins with ALLOC, a binding with BIND; each ends once, the binding first."""
    number = driver.subscribe("kvm", token="vm-1")
    ioasid = driver.bound(spid=101)
    driver.unbind(ioasid)
    driver.bind(ioasid, 102)
    driver.free(ioasid)
    driver.finish(number, "kvm")
    table = SubscriberTable()
    life = Life(ioasid, 0, "vm-1", 1)
    first, second = Binding(ioasid, 101, 0, "vm-1", 1), Binding(ioasid, 102, 0, "vm-1", 1)
    assert [
        (ALLOC, (Began(life),)),
        (BIND, (Began(first),)),
        (UNBIND, (Ended(first),)),
        (BIND, (Began(second),)),
        (FREE, (Ended(second), Ended(life))),
        (RECLAIM, ()),
    ] == [
        (message.kind, table.update(message))
        for message in driver.messages(number)
        if isinstance(message, Event)
    ]
    assert ({}, {}) == (table.lives, table.bindings)


@pytest.mark.parametrize(
    ("kind", "state", "expected"),
    [
        (ALLOC, "absent", [Began(LIFE)]),
        (ALLOC, "unbound", [Ended(LIFE), Began(LIFE)]),
        (ALLOC, "bound", [Ended(BOUND), Ended(LIFE), Began(LIFE)]),
        (BIND, "absent", [Began(LIFE), Began(BOUND)]),
        (BIND, "unbound", [Began(BOUND)]),
        (BIND, "bound", [Ended(BOUND), Began(BOUND)]),
        (UNBIND, "absent", [Began(LIFE)]),
        (UNBIND, "unbound", []),
        (UNBIND, "bound", [Ended(BOUND)]),
        (FREE, "absent", []),
        (FREE, "unbound", [Ended(LIFE)]),
        (FREE, "bound", [Ended(BOUND), Ended(LIFE)]),
        (RECLAIM, "absent", []),
        (RECLAIM, "unbound", [Ended(LIFE)]),
        (RECLAIM, "bound", [Ended(BOUND), Ended(LIFE)]),
    ],
)
def test_every_event_in_every_state(kind: EventKind, state: str, expected: list[Change]) -> None:
    """An event is taken at its word, whichever events before it the subscriber does not get."""
    table = table_of(state)
    assert tuple(expected) == table.update(event(kind, spid=101))
    begun: dict[EventKind, tuple[dict[int, Life], dict[int, Binding]]] = {
        ALLOC: ({7: LIFE}, {}),
        BIND: ({7: LIFE}, {7: BOUND}),
        UNBIND: ({7: LIFE}, {}),
    }
    assert begun.get(kind, ({}, {})) == (table.lives, table.bindings)


def test_another_id_is_another_matter() -> None:
    """What happens to one ID changes nothing about the others."""
    table = table_of("bound")
    assert (Began(Life(8, 0, "vm-1")),) == table.update(event(ALLOC, 8))
    table.update(event(FREE, 8))
    assert ({7: LIFE}, {7: BOUND}) == (table.lives, table.bindings)


@pytest.mark.usefixtures("two_sets")
def test_publishers_own_events_change_nothing(driver: Driver) -> None:
    """A notification of somebody's own neither begins nor ends anything."""
    number = driver.subscribe("kvm", token="vm-1")
    ioasid = driver.bound(spid=101)
    table = given(driver, number)
    before = dict(table.lives), dict(table.bindings)
    done = len(driver.messages(number))
    for kind in (ALLOC, BIND, UNBIND, FREE):
        driver.ask(Notify(ioasid, kind))
    told = driver.messages(number)[done:]
    assert [ALLOC, BIND, UNBIND, FREE] == [each.kind for each in told if isinstance(each, Event)]
    assert [()] * 4 == [table.update(each) for each in told]
    assert before == (table.lives, table.bindings)
    assert [()] * 4 == [ended_by(each) for each in told]


# -- a Resync ---------------------------------------------------------------------------------


def test_resync_ends_and_begins_in_order() -> None:
    """A Resync ends what it shows no more, then begins what is new, each by ascending ID."""
    table = SubscriberTable()
    for ioasid, spid in ((9, 109), (5, 105), (7, 107), (3, None), (1, 101)):
        table.update(event(ALLOC, ioasid))
        if spid is not None:
            table.update(event(BIND, ioasid, spid))
    shown = resync(live(1, 101), live(8, 108), live(7, 177), live(3, 103), live(5, pending=True))
    assert (
        Ended(Binding(5, 105, 0, "vm-1")),
        Ended(Life(5, 0, "vm-1")),
        Ended(Binding(7, 107, 0, "vm-1")),
        Ended(Binding(9, 109, 0, "vm-1")),
        Ended(Life(9, 0, "vm-1")),
        Began(Binding(3, 103, 0, "vm-1")),
        Began(Binding(7, 177, 0, "vm-1")),
        Began(Life(8, 0, "vm-1")),
        Began(Binding(8, 108, 0, "vm-1")),
    ) == table.update(shown)
    assert {1: 101, 3: 103, 7: 177, 8: 108} == {
        ioasid: binding.spid for ioasid, binding in table.bindings.items()
    }
    assert () == table.update(shown)


def test_resync_shows_an_unbound_id() -> None:
    """An ID that a Resync shows without a spid lives on, and its binding has ended."""
    table = table_of("bound")
    assert (Ended(BOUND),) == table.update(resync(live(7)))
    assert ({7: LIFE}, {}) == (table.lives, table.bindings)


def test_resync_shows_quarantine_with_its_spid() -> None:
    """An ID in quarantine is neither alive nor bound, though its spid is still attached."""
    table = SubscriberTable()
    assert () == table.update(resync(live(7, 101, pending=True)))
    assert ({}, {}, None) == (table.lives, table.bindings, table.find_by_spid(101))


def test_resync_shows_the_id_in_another_set() -> None:
    """An ID that another set has now has another life, and its binding is another one."""
    table = table_of("bound")
    assert (
        Ended(BOUND),
        Ended(LIFE),
        Began(Life(7, 4, "vm-1")),
        Began(Binding(7, 101, 4, "vm-1")),
    ) == table.update(resync(live(7, 101, sid=4)))
    assert 4 == table.bindings[7].sid
    assert (None, table.bindings[7]) == (table.find_by_spid(101, 0), table.find_by_spid(101, 4))


def test_resync_shows_another_life() -> None:
    """The same ID in the same set and with the same spid, in another life: all of it began anew."""
    table = table_of("bound")
    again = replace(live(7, 101), generation=2)
    life, binding = replace(LIFE, generation=2), replace(BOUND, generation=2)
    assert (Ended(BOUND), Ended(LIFE), Began(life), Began(binding)) == table.update(resync(again))
    assert ({7: life}, {7: binding}) == (table.lives, table.bindings)
    assert () == table.update(resync(again))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ALLOC, ("Ended", "Ended", "Began")),
        (BIND, ("Ended", "Ended", "Began", "Began")),
        (UNBIND, ("Ended", "Ended", "Began")),
        (FREE, ("Ended", "Ended")),
        (RECLAIM, ("Ended", "Ended")),
    ],
)
def test_an_event_of_another_life(kind: EventKind, expected: tuple[str, ...]) -> None:
    """What an event tells of a later life ends the one before, whose end it was not told."""
    table = table_of("bound")
    changes = table.update(replace(event(kind, spid=101), generation=2))
    assert expected == tuple(type(each).__name__ for each in changes)
    assert (BOUND, LIFE) == tuple(each.what for each in changes[:2])
    assert {2} >= {each.what.generation for each in changes[2:]}
    assert {2} >= {each.generation for each in table.lives.values()}


@pytest.mark.usefixtures("two_sets")
def test_resync_as_of_the_tier(driver: Driver) -> None:
    """What a Resync of a lower tier does not show yet follows as an event, and applies."""
    kvm = driver.subscribe("kvm", token="vm-1", kinds=BINDING, priority=CPU, hold=True)
    bound, ending = driver.bound(spid=101), driver.bound(spid=102)
    driver.finish(kvm, "kvm")
    driver.free(ending)
    driver.unbind(bound)
    vdcm = driver.subscribe("vdcm", kinds=BINDING, priority=DEVICE, replay=True)
    first, second = Binding(bound, 101, 0, "vm-1", 1), Binding(ending, 102, 0, "vm-1", 2)
    table = SubscriberTable()
    life, other = Life(bound, 0, "vm-1", 1), Life(ending, 0, "vm-1", 2)
    begun = (Began(life), Began(first), Began(other), Began(second))
    assert begun == table.update(driver.resync(vdcm))
    driver.acknowledge(vdcm, driver.resync(vdcm).seq, "vdcm")
    driver.finish(kvm, "kvm")
    assert {(Ended(first),), (Ended(second), Ended(other))} == {
        table.update(each) for each in driver.messages(vdcm)[1:]
    }
    assert ({bound: life}, {}) == (table.lives, table.bindings)


@pytest.mark.usefixtures("two_sets")
def test_a_life_that_came_and_went_unseen(driver: Driver) -> None:
    """A subscriber whose queue was full of ALLOC sees another life behind it, not the same one."""
    kinds = frozenset((ALLOC, RECLAIM))
    kvm = driver.subscribe("kvm", token="vm-1", kinds=kinds, queue_size=1)
    ioasid = driver.alloc()
    table = SubscriberTable()
    assert (Began(Life(ioasid, 0, "vm-1", 1)),) == table.update(driver.last(kvm))
    driver.free(ioasid)
    assert ioasid == driver.alloc()
    driver.finish(kvm, "kvm")
    first, second = Life(ioasid, 0, "vm-1", 1), Life(ioasid, 0, "vm-1", 2)
    assert (Ended(first), Began(second)) == table.update(driver.resync(kvm))


@pytest.mark.usefixtures("two_sets")
def test_comes_too_late(driver: Driver) -> None:
    """Who came in the middle is told the ends of what it never had, and has nothing of them."""
    bound, freed = driver.bound(spid=101), driver.bound(spid=102)
    number = driver.subscribe("kvm", token="vm-1")
    driver.unbind(bound)
    driver.free(freed)
    table = SubscriberTable()
    assert [(Began(Life(bound, 0, "vm-1", 1)),), ()] == [
        table.update(each) for each in driver.messages(number)
    ]


# -- by spid ----------------------------------------------------------------------------------


def test_find_by_spid_in_a_set() -> None:
    """Two sets may use the same spid; without a set, the binding that began last is found."""
    table = SubscriberTable()
    for ioasid, sid in ((7, 0), (8, 1)):
        table.update(event(BIND, ioasid, 101, sid=sid))
    assert [7, 8, 8] == [
        found.ioasid for sid in (0, 1, None) if (found := table.find_by_spid(101, sid)) is not None
    ]
    assert (None, None) == (table.find_by_spid(101, 2), table.find_by_spid(102))
    table.update(event(FREE, 8, 101, sid=1))
    assert (BOUND, BOUND, None) == (
        table.find_by_spid(101),
        table.find_by_spid(101, 0),
        table.find_by_spid(101, 1),
    )


def test_spid_moves_to_another_id() -> None:
    """A spid is its newest ID's, whether the end of the older binding comes before or after."""
    table = table_of("bound")
    table.update(event(BIND, 8, 101))
    moved = Binding(8, 101, 0, "vm-1")
    assert {7: BOUND, 8: moved} == table.bindings
    assert moved == table.find_by_spid(101)
    assert (Ended(BOUND),) == table.update(event(UNBIND, spid=101))
    assert moved == table.find_by_spid(101)
    table.update(event(UNBIND, 8, 101))
    assert None is table.find_by_spid(101)


def test_spid_moves_back() -> None:
    """A spid that moves from one set to another and back is the first one's again."""
    table = SubscriberTable()
    for ioasid, sid in ((7, 0), (8, 1)):
        table.update(event(BIND, ioasid, 101, sid=sid))
    table.update(event(BIND, 9, 101))
    assert Binding(9, 101, 0, "vm-1") == table.find_by_spid(101)


# -- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [None, "FREE", live(7), ListSet(0), Listing(0, (live(7),)), event(BIND)],
    ids=lambda each: type(each).__name__,
)
def test_no_message_for_a_table(message: Any) -> None:
    """What is no message to a subscriber is refused, and the table stays as it was."""
    table = table_of("bound")
    with pytest.raises(InvalidArgument) as caught:
        table.update(message)
    assert "message" == caught.value.argument
    assert ({7: LIFE}, {7: BOUND}) == (table.lives, table.bindings)
    assert (Ended(BOUND), Ended(LIFE)) == table.update(event(FREE, spid=101))


def test_views_are_for_reading() -> None:
    """Nobody changes the table but its messages, and what was read before shows the changes."""
    table = SubscriberTable()
    lives, bindings = table.lives, table.bindings
    table.update(event(BIND, spid=101))
    assert ({7: LIFE}, {7: BOUND}) == (lives, bindings)
    views: tuple[Any, Any] = lives, bindings
    for view in views:
        with pytest.raises(TypeError):
            del view[7]


@pytest.mark.parametrize("value", [LIFE, BOUND, Began(LIFE), Ended(BOUND)], ids=repr)
def test_what_was_told_is_frozen(value: Any) -> None:
    """Nobody changes what the table or a change says."""
    with pytest.raises(AttributeError):
        setattr(value, value.__struct_fields__[0], 8)


# -- for who looks IDs up itself --------------------------------------------------------------


@pytest.mark.usefixtures("two_sets")
def test_ended_by(driver: Driver) -> None:
    """An UNBIND, FREE or RECLAIM names what is over, a Resync all that is in quarantine."""
    number = driver.subscribe("vdcm")
    ioasid = driver.bound(spid=101)
    driver.unbind(ioasid)
    driver.ask(Get(ioasid))
    driver.ask(FreeSet(0))
    assert [(ALLOC, ()), (BIND, ()), (UNBIND, (ioasid,)), (FREE, (ioasid,))] == [
        (each.kind, ended_by(each)) for each in driver.messages(number) if isinstance(each, Event)
    ]
    driver.bound(1)
    late = driver.subscribe("kvm", replay=True)
    assert (ioasid,) == ended_by(driver.resync(late))
    assert (ioasid,) == ended_by(event(RECLAIM, ioasid))


def test_ended_by_no_message() -> None:
    """What is no message to a subscriber is refused."""
    message: Any = live(7, pending=True)
    with pytest.raises(InvalidArgument):
        ended_by(message)


# -- random histories -------------------------------------------------------------------------


@define(eq=False)
class Follower(Observer):
    """A subscriber with a table, which it compares with all that an observer knows."""

    table: SubscriberTable = field(factory=SubscriberTable)
    begun: list[Life | Binding] = field(factory=list)
    """What began and has not ended, in that order, as the changes say."""
    newest: dict[tuple[int, int], Binding | None] = field(factory=dict)
    """What has each set's spid."""
    complete: bool = False
    """It knows of everything in its scope, since it was there from the start or was shown it."""

    def take(self) -> None:
        """Take the next message, and look at what the table makes of it."""
        super().take()
        assert self.hand is not None
        changes = self.table.update(self.hand)
        for change in changes:
            self.note(change)
        if isinstance(self.hand, Resync):
            self.complete = True
            order = [(isinstance(each, Began), each.what.ioasid) for each in changes]
            assert sorted(order) == order
        elif self.hand.publisher is not None:
            assert () == changes
        self.compare()

    def note(self, change: Change) -> None:
        """Each thing begins and ends in turn, and one ID has one life and one binding at a time."""
        what = change.what
        if isinstance(change, Ended):
            self.begun.remove(what)
            if isinstance(what, Binding) and self.newest[what.sid, what.spid] == what:
                self.newest[what.sid, what.spid] = None
            return
        assert not any(
            type(each) is type(what) and each.ioasid == what.ioasid for each in self.begun
        )
        self.begun.append(what)
        if isinstance(what, Binding):
            self.newest[what.sid, what.spid] = what

    def compare(self) -> None:
        """Compare the table with the changes, and with what may be so as far as anybody knows."""
        table = self.table
        lives = {each.ioasid: each for each in self.begun if isinstance(each, Life)}
        bindings = {each.ioasid: each for each in self.begun if isinstance(each, Binding)}
        assert (lives, bindings) == (table.lives, table.bindings)
        assert bindings.keys() <= lives.keys() <= self.known.keys()
        for ioasid, states in self.known.items():
            if states <= {"unbound", "bound"}:
                assert ioasid in lives
            elif states <= {"free pending", "absent"}:
                assert ioasid not in lives
        if self.follows_bindings:
            assert self.spids == {each.ioasid: each.spid for each in bindings.values()}
        for (sid, spid), binding in self.newest.items():
            assert binding == table.find_by_spid(spid, sid)


class Followed(History):
    """A history whose subscribers have tables."""

    observer = Follower

    def everybody_knows_the_truth(self) -> None:
        """Compare the tables with what there is, too, when nothing is under way."""
        super().everybody_knows_the_truth()
        truth = [
            each
            for sid in {life.sid for life in self.ledger.values()}
            for listing in (self.core.handle(self.core.session, ListSet(sid)),)
            if isinstance(listing, Listing)
            for each in listing
            if each.state is IoasidState.ACTIVE
        ]
        for follower in self.observers.present.values():
            assert isinstance(follower, Follower)
            if not follower.complete:
                continue
            covered = [each for each in truth if covers(follower.terms, each.sid, each.token)]
            if follower.knows_everything:
                lives = {
                    each.ioasid: Life(each.ioasid, each.sid, each.token, each.generation)
                    for each in covered
                }
                assert lives == follower.table.lives
            if follower.follows_bindings:
                assert {
                    each.ioasid: Binding(
                        each.ioasid, each.spid, each.sid, each.token, each.generation
                    )
                    for each in covered
                    if each.spid is not None
                } == follower.table.bindings


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, HISTORIES, BATCH))
def test_histories(first: int) -> None:
    """Whatever happens and whatever a subscriber gets, its table is true as of its messages."""
    compared = 0
    for seed in range(first, min(first + BATCH, HISTORIES)):
        history = Followed(seed)
        for step in range(STEPS):
            history.step()
            if step % 100 == 60:
                history.come_to_rest()
                compared += sum(
                    isinstance(each, Follower) and each.complete and bool(each.table.bindings)
                    for each in history.observers.present.values()
                )
        history.end()
    assert compared > 0
