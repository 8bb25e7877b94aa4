"""What may be asked of an allocator of a few IDs, for the tests that ask anything in any order."""

from typing import Final

from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers

from ioasid import core
from ioasid.core import EventKind, Priority, TokenType
from tests.core.model import HOLDING

# Hypothesis would also try what stands in the code beside the tests, if that lies in some folders:
# the examples would be others where the project is installed, or one test runs alone.
providers.is_local_module_file = lambda path: False  # type: ignore[assignment, attr-defined]

HOLDERS: Final = ("kvm", "vdcm", "vtd", "vfio")
TOKENS: Final = ("vm-1", "vm-2")
CAPACITY: Final = 16

some = st.integers(0, 99)
"""Picks one of the things that are there, however many."""
names = st.sampled_from(HOLDERS)
tokens = st.sampled_from(TOKENS)
sids = st.sampled_from((0, 0, 0, 1, 1, 1, 2, 2, 3))
any_sid = st.sampled_from((None, None, None, None, 0, 1, 2))
quotas = st.none() | st.integers(0, 9)
ids = st.integers(0, 9)
spids = st.integers(0, 3)
kinds = st.one_of(
    st.sampled_from((frozenset(EventKind), HOLDING)),
    st.sampled_from((frozenset(EventKind), HOLDING)),
    st.frozensets(st.sampled_from(EventKind)),
)

generations = st.sampled_from((*(None,) * 6, 1, 1, 2, 3, 4, 5, 7, 99))
"""Lives, often of ones that are over."""
groups = st.sampled_from(("tenant", "department", "desk"))
"""Names of groups, often of ones that there are."""
spans = st.tuples(st.integers(0, 17), st.sampled_from((0, 0, 1, 3, -1)))
"""The first number of a range, and how far its last one is from it."""

set_requests = st.one_of(
    st.builds(core.InstallCapacity, st.sampled_from((CAPACITY, 0, 6, 2**32))),
    st.builds(core.ReserveCapacity, quotas),
    st.builds(core.CancelCapacity, st.integers(0, 6)),
    spans.map(lambda span: core.ReserveRange(span[0], sum(span))),
    spans.map(lambda span: core.CancelRange(span[0], sum(span))),
    st.builds(core.AllocGroup, groups, st.integers(0, 9), st.none() | groups),
    st.builds(core.AdjustGroup, groups, st.integers(0, 9)),
    st.builds(core.FreeGroup, groups),
    st.builds(core.AllocSet, tokens, quotas, group=groups),
    st.builds(core.AllocSystemSet, quotas),
    st.builds(core.AllocSet, tokens, quotas),
    st.builds(core.AllocSet, st.none(), quotas, st.just(TokenType.NULL)),
    st.builds(core.AllocSet, st.none() | tokens, quotas, st.sampled_from(TokenType)),
    st.builds(core.AdjustSet, sids, st.integers(0, 9)),
    st.builds(core.FreeSet, sids, st.booleans(), st.booleans()),
)
exported_ids = st.builds(
    core.ExportedIoasid, ids, st.none() | spids, st.sampled_from((None, 7, "x"))
)
exports = st.one_of(
    st.builds(
        core.SetExport,
        tokens,
        st.just(TokenType.MM),
        st.integers(3, 6),
        st.sampled_from(((), (core.IoasidRange(4, 6),))),
        st.sampled_from(
            (
                (),
                (core.ExportedIoasid(4, 0, None),),
                (core.ExportedIoasid(4, 3, 7), core.ExportedIoasid(6, 1, None)),
            )
        ),
    ),
    st.builds(
        core.SetExport,
        st.none() | tokens,
        st.sampled_from(TokenType),
        st.integers(0, 6),
        st.lists(st.builds(core.IoasidRange, ids, ids), max_size=2).map(tuple),
        st.lists(exported_ids, max_size=3).map(tuple),
    ),
)
"""What another host may say of a set, most of the time what makes sense."""
moves = st.one_of(
    st.builds(core.FreezeSet, sids, st.booleans()),
    st.builds(core.ThawSet, sids),
    st.builds(core.ExportSet, sids),
    st.builds(core.ActivateSet, st.integers(0, 9)),
    st.builds(core.ImportSet, exports, st.none() | groups, st.sampled_from((1, 1, 0, 5))),
)
look_ups = st.one_of(
    st.builds(core.FindSid, ids, generations),
    st.builds(core.FindSet, st.none() | tokens, st.none() | sids),
    st.builds(core.Find, ids, any_sid, generation=generations),
    st.builds(core.ListSet, sids),
    st.builds(core.ListGroups, st.none() | groups, st.sampled_from((100, 1, 2, 0, 1001))),
    st.builds(core.ListSets, st.none() | sids, st.integers(0, 3)),
    st.builds(core.ListHolders, st.none() | names, st.integers(0, 3)),
    st.builds(core.Explain, ids, generations),
    st.builds(core.FindBySpid, sids, spids, st.booleans()),
)
allocations = st.one_of(
    st.builds(core.Alloc, sids, st.just(1), st.none(), st.sampled_from((None, 7, "x"))),
    st.builds(core.Alloc, sids, st.sampled_from((0, 3, 9)), st.none() | st.integers(0, 17)),
    st.builds(core.AllocMany, sids, st.integers(0, 6), st.sampled_from((1, 0, 5))),
)
references = st.one_of(
    st.builds(core.Get, ids, any_sid, generation=generations),
    st.builds(core.Put, ids, any_sid, generation=generations),
    st.builds(core.AttachData, ids, st.sampled_from((7, "x")), any_sid, generations),
    st.builds(core.DetachData, ids, any_sid, generations),
)
bindings = st.one_of(
    st.builds(core.AttachSpid, ids, spids, any_sid, generations),
    st.builds(core.DetachSpid, ids, any_sid, generations),
)
notes = st.builds(core.Notify, ids, st.sampled_from(EventKind), any_sid, generations)
scopes = st.one_of(
    st.just((None, None)),
    st.tuples(st.none(), tokens),
    st.tuples(sids, st.none()),
    st.tuples(st.just(0), st.none() | tokens),
)
terms = scopes.flatmap(
    lambda scope: st.builds(
        core.Subscribe,
        sid=st.just(scope[0]),
        token=st.just(scope[1]),
        kinds=kinds,
        priority=st.sampled_from(Priority),
        hold=st.booleans(),
        replay=st.booleans(),
        queue_size=st.sampled_from((1, 2, 4, 1024)),
        acknowledge_within=st.sampled_from((10.0, 1.0, None)),
        awaited=st.sampled_from((True, True, True, False)),
    )
)
frees = st.builds(core.Free, ids, any_sid, st.booleans(), generation=generations)
some_ranges = st.lists(st.builds(core.IoasidRange, ids, ids), max_size=3).map(tuple)
"""Ranges as people might have them: most of the time not what is asked for."""
frees_of_many = st.builds(core.FreeMany, sids, some_ranges, generations, st.booleans())
comings_and_goings = st.one_of(
    st.just(core.SuspendSession()),
    st.just(core.CloseSession()),
    st.builds(core.Evict, names),
)
anything = st.one_of(
    allocations,
    allocations,
    references,
    bindings,
    bindings,
    frees,
    frees_of_many,
    notes,
    set_requests,
    moves,
    look_ups,
    terms,
    terms,
    comings_and_goings,
)
"""Any request, the ones that much follows from more often than others."""
