"""What changed: whoever applies it to a mirror sees what there is, after every request."""

from attrs import define, field
from hypothesis import given

from ioasid.core import (
    Allocator,
    AllocMany,
    Changes,
    CloseSession,
    Find,
    FindSet,
    Free,
    FreeSet,
    Get,
    IoasidRange,
    IoasidRecord,
    IoasidState,
    Listing,
    ListSet,
    LiveIoasid,
    OpenSession,
    Put,
    QuotaExceeded,
    SessionOpened,
    SetRecord,
    Statistics,
    TakeStatistics,
    UnknownIoasid,
)
from tests.core.helpers import Driver, expect
from tests.core.play import SETTINGS, Play, Step, steps


@define
class Mirror:
    """The IDs and sets there are, as far as the changes tell."""

    ioasids: dict[int, IoasidRecord] = field(factory=dict)
    sets: dict[int, SetRecord] = field(factory=dict)

    def apply(self, changes: Changes) -> None:
        """Take what one request changed."""
        for each in changes.reclaimed:
            for ioasid in range(each.first, each.last + 1):
                del self.ioasids[ioasid]
        for each in changes.allocated:
            (owner,) = changes.sets
            for ioasid in range(each.first, each.last + 1):
                assert ioasid not in self.ioasids
                self.ioasids[ioasid] = IoasidRecord(
                    ioasid, owner.sid, None, IoasidState.ACTIVE, None, {}, 1, changes.generation
                )
        self.ioasids |= {record.ioasid: record for record in changes.ioasids}
        for sid in changes.sets_gone:
            self.sets.pop(sid, None)
        self.sets |= {record.sid: record for record in changes.sets}

    def compare(self, core: Allocator) -> None:
        """Compare with all that can be looked up."""
        session = core.handle(0, OpenSession("onlooker"))
        assert isinstance(session, SessionOpened)
        found: dict[int, IoasidRecord | None] = {}
        for sid, owner in self.sets.items():
            assert owner == core.handle(session.session, FindSet(sid=sid))
            listing = expect(Listing, core.handle(session.session, ListSet(sid)))
            mine = [record for _, record in sorted(self.ioasids.items()) if record.sid == sid]
            live = tuple(
                LiveIoasid(
                    each.ioasid,
                    sid,
                    owner.token,
                    each.state,
                    each.spid,
                    each.data,
                    each.generation,
                )
                for each in mine
            )
            assert live == tuple(listing)
            found |= {each.ioasid: core.record(each.ioasid) for each in mine}
        assert found == self.ioasids
        figures = expect(Statistics, core.handle(session.session, TakeStatistics()))
        assert (len(self.sets), len(self.ioasids)) == (
            figures.sets,
            figures.active + figures.free_pending,
        )
        core.handle(session.session, CloseSession())
        core.drain()


@SETTINGS
@given(steps)
def test_a_mirror_sees_what_there_is(history: list[Step]) -> None:
    """The changes of each request make of what was there what is there, and name nothing else."""
    play = Play()
    play.core.watch()
    mirror = Mirror()

    def look() -> None:
        changes = play.core.changes()
        mirror.apply(changes)
        mirror.compare(play.core)
        assert Changes() == play.core.changes()

    play.run(history, look)


@SETTINGS
@given(steps)
def test_nothing_is_kept_unless_somebody_watches(history: list[Step]) -> None:
    """Without `watch` there is no account, and the same state comes about with it."""
    plain, watched = Play(), Play()
    watched.core.watch()
    for play in (plain, watched):
        play.run(history, lambda: None)
    assert plain.core._tables.changes is None
    assert Changes() == plain.core.changes()
    assert plain.core.snapshot() == watched.core.snapshot()


def test_what_a_request_changed(driver: Driver) -> None:
    """Ranges of what left the pool and came back, and records as they are after the request."""
    driver.core.watch()
    driver.set("vm-1", 16)
    assert [0] == [each.sid for each in driver.core.changes().sets]
    driver.ask(AllocMany(0, 3))
    changes = driver.core.changes()
    assert (IoasidRange(1, 3),) == changes.allocated
    assert ([3], ()) == ([each.allocated for each in changes.sets], changes.ioasids)
    driver.ask(Get(2), "kvm")
    changes = driver.core.changes()
    assert Changes(ioasids=(driver.find(2),)) == changes
    driver.ask(Free(1))
    assert (IoasidRange(1, 1),) == driver.core.changes().reclaimed
    driver.ask(FreeSet(0))
    changes = driver.core.changes()
    assert ((IoasidRange(3, 3),), (driver.find(2),)) == (changes.reclaimed, changes.ioasids)
    driver.ask(Put(2), "kvm")
    changes = driver.core.changes()
    assert Changes(reclaimed=(IoasidRange(2, 2),), sets_gone=(0,)) == changes


def test_a_grant_is_a_change(driver: Driver) -> None:
    """Who begins with a Resync is granted what is bound, which the ID's record shows."""
    driver.set("vm-1", 2)
    ioasid = driver.bound()
    driver.core.watch()
    driver.subscribe("kvm", hold=True, replay=True)
    assert {"kvm": 1} == driver.find(ioasid).references
    assert Changes(ioasids=(driver.find(ioasid),)) == driver.core.changes()


def test_a_refused_request_changes_nothing(driver: Driver) -> None:
    """What is refused is in no account."""
    driver.set("vm-1", 2)
    driver.alloc()
    driver.core.watch()
    driver.refused(QuotaExceeded, AllocMany(0, 2))
    driver.refused(UnknownIoasid, Free(9))
    driver.ask(Find(1))
    assert Changes() == driver.core.changes()
