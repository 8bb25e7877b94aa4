"""The replica decides as the original did, and explains."""

from ioasid.core import (
    Alloc,
    Allocator,
    AllocMany,
    AllocSet,
    AttachData,
    EventKind,
    Free,
    IoasidRange,
    Priority,
    Subscribe,
)
from ioasid.recorder._replica import Replica


def test_it_explains_in_nobodys_name() -> None:
    """It says whom an ID waits for, though no session is there to ask, and knows who is there."""
    core = Allocator(64)
    core.handle(core.session, AllocSet("vm-1", 4))
    core.handle(core.session, Alloc(0))
    kinds = frozenset((EventKind.FREE,))
    core.handle(core.session, Subscribe(kinds=kinds, priority=Priority.CPU))
    replica = Replica.restore(core.snapshot())
    before = replica.snapshot()
    replica.handle(core.session, Free(1))
    assert ("host",) == replica.explain(1).blockers
    assert replica.has("host")
    assert not replica.has("nobody")
    assert [True, False] == [replica.has_subscription(each) for each in (1, 2)]
    assert before.index + 1 == replica.index


def test_it_lists_what_a_set_has() -> None:
    """IDs as ranges, across words, and the records of those with more to say."""
    core = Allocator(8192)
    core.handle(core.session, AllocSet("vm-1", 4000))
    core.handle(core.session, AllocMany(0, 3000))
    for ioasid in (7, 2000):
        core.handle(core.session, Free(ioasid))
    core.handle(core.session, AttachData(1024, "x"))
    replica = Replica.restore(core.snapshot())
    expected = [IoasidRange(1, 6), IoasidRange(8, 1999), IoasidRange(2001, 3000)]
    assert expected == replica.live(0)
    assert [(1024, "x")] == [(each.ioasid, each.data) for each in replica.records(0)]
