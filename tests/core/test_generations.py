"""Which life of an ID is meant: the numbers of lives, stale ones, and how few write many."""

import copy
import pickle
import random
from typing import get_args

import pytest
from msgspec.structs import replace

from ioasid.core import (
    Alloc,
    Allocated,
    AllocatedMany,
    Allocator,
    AllocMany,
    AttachData,
    AttachSpid,
    CancelRange,
    DetachData,
    DetachSpid,
    EventKind,
    Explain,
    Find,
    FindBySpid,
    FindSid,
    Free,
    FreeMany,
    FreeSet,
    Get,
    InvalidArgument,
    Ioasid,
    IoasidRange,
    IoasidRecord,
    Listing,
    ListSet,
    Notify,
    Put,
    Request,
    StaleIoasid,
    UnknownIoasid,
    UnknownSet,
    decode_snapshot,
    encode,
)
from ioasid.core._generations import pack, unpack
from ioasid.core._snapshot import SnapshotWord
from ioasid.core._space import SHIFT, IdSpace, Owner, ones
from tests.core.helpers import Driver, expect

OF_ONE_LIFE: list[Request] = [
    FindSid(1),
    Find(1),
    Explain(1),
    Free(1),
    Free(1, wait=True),
    FreeMany(0, (IoasidRange(1, 1),)),
    Get(1),
    Put(1),
    AttachData(1, 7),
    DetachData(1),
    AttachSpid(1, 5),
    DetachSpid(1),
    Notify(1, EventKind.BIND),
]
"""Every request that names an ID."""


def second_life(driver: Driver, request: Request) -> None:
    """ID 1 in its second life, in which the request may be asked."""
    driver.set()
    driver.free(driver.alloc())
    assert Allocated(1, 2) == driver.ask(Alloc(0))
    match request:
        case Put():
            driver.ask(Get(1))
        case DetachSpid():
            driver.bind(1)
        case DetachData():
            driver.ask(AttachData(1, "mine"))
        case _:
            pass


def names(request: Request) -> str:
    """The name of a request's type."""
    return type(request).__name__


def test_every_request_that_names_an_id_is_tried() -> None:
    """Whatever takes a generation is among those that the tests of this module go through."""
    union = get_args(Request)
    assert {kind for kind in union if "generation" in kind.__struct_fields__} == {
        type(each) for each in OF_ONE_LIFE
    }
    assert {kind for kind in union if "ioasid" in kind.__struct_fields__} == {
        type(each) for each in OF_ONE_LIFE if not isinstance(each, FreeMany)
    }


@pytest.mark.parametrize("generation", [1, 3, 0, 2**63, 2**64 - 1])
@pytest.mark.parametrize("request_", OF_ONE_LIFE, ids=names)
def test_a_stale_generation_touches_nobody(
    driver: Driver, request_: Request, generation: int
) -> None:
    """ESTALE: a life that is over, or that never was, whoever has the ID now; nothing changes."""
    second_life(driver, request_)
    stale = replace(request_, generation=generation)
    driver.refused(StaleIoasid, stale, ioasid=1, generation=generation, current=2)


@pytest.mark.parametrize("generation", [2, None])
@pytest.mark.parametrize("request_", OF_ONE_LIFE, ids=names)
def test_the_life_that_is_meant(driver: Driver, request_: Request, generation: int | None) -> None:
    """The generation that the ID has now is answered as none is: whoever has the ID."""
    second_life(driver, request_)
    driver.ask(replace(request_, generation=generation))


@pytest.mark.parametrize("request_", OF_ONE_LIFE, ids=names)
def test_a_life_without_a_successor(driver: Driver, request_: Request) -> None:
    """ENOENT: the life is over and the ID in the pool; in quarantine it is the same life yet."""
    driver.set()
    driver.ask(Get(driver.alloc()))
    driver.free(1)
    driver.refused(StaleIoasid, replace(request_, generation=2), ioasid=1)
    assert Allocated(2, 2) == driver.ask(Alloc(0))
    driver.ask(Put(1, generation=1))
    driver.refused(UnknownIoasid, replace(request_, generation=1), ioasid=1)


@pytest.mark.parametrize("request_", OF_ONE_LIFE, ids=names)
def test_a_stale_life_is_said_before_another_set(driver: Driver, request_: Request) -> None:
    """ESTALE comes before EACCES and EBUSY, for whoever is stale learns nothing of the next."""
    driver.set()
    driver.set("vm-2")
    driver.free(driver.alloc())
    driver.ask(Get(driver.alloc(1)))
    stale = replace(request_, generation=1)
    if "sid" in request_.__struct_fields__ and not isinstance(request_, FreeMany):
        driver.refused(StaleIoasid, replace(stale, sid=0), ioasid=1)
    driver.free(1)
    if not isinstance(request_, FreeMany):
        driver.refused(StaleIoasid, stale, ioasid=1)


def test_free_many_is_all_of_one_life_or_none(driver: Driver) -> None:
    """Of many IDs at once, each has to be in the life that is named."""
    driver.set(quota=None)
    assert AllocatedMany((IoasidRange(1, 5),), 1) == driver.ask(AllocMany(0, 5))
    driver.free(3)
    assert Allocated(3, 2) == driver.ask(Alloc(0))
    many = FreeMany(0, (IoasidRange(1, 5),), generation=1)
    driver.refused(StaleIoasid, many, ioasid=3, generation=1, current=2)
    driver.ask(FreeMany(0, (IoasidRange(1, 2), IoasidRange(4, 5)), generation=1))
    assert 1 == driver.figures().active


def test_every_allocation_has_a_number_of_its_own(driver: Driver) -> None:
    """They count up over all sets; a refusal takes none, and one allocation of many takes one."""
    driver.set(quota=20)
    driver.set("vm-2", 20)
    numbers = [expect(Allocated, driver.ask(Alloc(sid))).generation for sid in (0, 1, 0)]
    assert [1, 2, 3] == numbers
    driver.refused(InvalidArgument, Alloc(0, 5, 4))
    assert 4 == expect(AllocatedMany, driver.ask(AllocMany(0, 4))).generation
    assert 5 == expect(Allocated, driver.ask(Alloc(1))).generation


def test_whoever_tells_of_an_id_tells_its_life(driver: Driver) -> None:
    """Events, records, listings and look-ups by spid name the generation of the allocation."""
    driver.set()
    kvm = driver.subscribe("kvm")
    driver.free(driver.alloc())
    driver.finish(kvm, "kvm")
    ioasid = driver.alloc()
    driver.bind(ioasid, 5)
    driver.ask(Notify(ioasid, EventKind.ALLOC))
    driver.unbind(ioasid)
    driver.bind(ioasid, 6)
    assert 2 == expect(IoasidRecord, driver.find(ioasid)).generation
    assert Allocated(ioasid, 2) == driver.ask(FindBySpid(0, 6))
    assert [2] == [each.generation for each in expect(Listing, driver.ask(ListSet(0)))]
    late = driver.subscribe("vdcm", replay=True)
    assert [2] == [each.generation for each in driver.resync(late)]
    driver.free(ioasid)
    driver.finish(kvm, "kvm")
    driver.finish(late, "vdcm")
    events = [(each.seq, getattr(each, "generation", 2)) for each in driver.messages(kvm)]
    assert [1, 1, 1, *(2,) * (len(events) - 3)] == [generation for _, generation in events]


def test_the_set_that_is_gone_has_no_successor(driver: Driver) -> None:
    """ENOENT for ever: a set's number names no other set, nor does it hit the ID's next owner."""
    driver.set()
    ioasid = driver.alloc()
    driver.ask(FreeSet(0))
    assert 1 == driver.set("vm-2")
    assert ioasid == driver.alloc(1)
    for request in (Alloc(0), FreeSet(0), ListSet(0), Free(ioasid, 0), Find(ioasid, 0)):
        driver.refused(UnknownSet, request, sid=0)


def test_numbers_go_on_after_a_restore(driver: Driver) -> None:
    """Neither a set nor a life gets a number that one had before, though all of them are gone."""
    driver.set()
    driver.free(driver.alloc())
    driver.ask(FreeSet(0))
    again = Driver()
    again.core = Allocator.restore(decode_snapshot(encode(driver.core.snapshot())))
    again.sessions = dict(driver.sessions)
    assert 1 == again.set("vm-2")
    assert Allocated(1, 2) == again.ask(Alloc(1))
    again.refused(StaleIoasid, Free(1, generation=1), ioasid=1, generation=1, current=2)


@pytest.mark.parametrize("seed", range(4))
def test_a_restore_knows_every_life(seed: int) -> None:
    """IDs of many lives in words of several sets are, restored, in the lives that they were in."""
    choose = random.Random(seed)
    driver = Driver(6000)
    driver.ask(CancelRange(0, 0))
    for token in ("vm-1", "vm-2", "vm-3"):
        driver.set(token, 2000)
    for _ in range(60):
        sid = choose.randrange(3)
        if choose.random() < 0.3:
            driver.core.handle(driver.core.session, AllocMany(sid, choose.randrange(1, 40), 0))
        else:
            driver.core.handle(driver.core.session, Alloc(sid, choose.randrange(5000)))
        if choose.random() < 0.5:
            listed = list(expect(Listing, driver.ask(ListSet(choose.randrange(3)))))
            for each in choose.sample(listed, len(listed) // 4):
                driver.free(each.ioasid)
    snapshot = driver.core.snapshot()
    again = Allocator.restore(decode_snapshot(encode(snapshot)))
    assert snapshot == again.snapshot()
    for sid in range(3):
        listing = expect(Listing, driver.ask(ListSet(sid)))
        assert listing == again.handle(again.session, ListSet(sid))


# -- as ranges and words ----------------------------------------------------------------------


def taken(lives: dict[int, int]) -> tuple[IdSpace[Owner], Owner]:
    """A space in which an owner has IDs of these generations, taken one by one."""
    space: IdSpace[Owner] = IdSpace()
    owner = Owner(0)
    space.join(owner)
    for ioasid, generation in lives.items():
        space.take_lowest(ioasid, ioasid, owner, generation)
    return space, owner


def written(lives: dict[int, int]) -> tuple[list[tuple[int, ...]], list[int]]:
    """These IDs as ranges, and the first IDs of the words beside them."""
    space, owner = taken(lives)
    ranges, words = pack(
        (number, used, *space.lives(number, used)) for number, used in sorted(owner.members.items())
    )
    return [(each.first, each.last, each.generation, each.step) for each in ranges], [
        each.first for each in words
    ]


def in_a_row(first: int, count: int, generation: int, step: int) -> dict[int, int]:
    """The generations of IDs in a row, which all have the same one or count up."""
    return {first + index: generation + step * index for index in range(count)}


@pytest.mark.parametrize(
    ("lives", "ranges", "words"),
    [
        ({}, [], []),
        ({5: 7}, [(5, 5, 7, 0)], []),
        (in_a_row(5, 3, 7, 0), [(5, 7, 7, 0)], []),
        (in_a_row(5, 3, 7, 1), [(5, 7, 7, 1)], []),
        (in_a_row(1000, 3000, 7, 0), [(1000, 3999, 7, 0)], []),
        (in_a_row(1000, 3000, 7, 1), [(1000, 3999, 7, 1)], []),
        ({5: 9, 6: 8, 7: 7}, [], [5]),
        ({5: 7, 6: 7, 7: 8}, [], [5]),
        ({5: 7, 6: 9, 7: 7}, [], [5]),
        ({5: 7, 7: 7}, [], [5]),
        ({1022: 3, 1023: 4, 1024: 5}, [(1022, 1024, 3, 1)], []),
        ({1023: 4, 1024: 5, 1025: 6}, [(1023, 1025, 4, 1)], []),
        ({1023: 4, 1024: 4, 1025: 4}, [(1023, 1025, 4, 0)], []),
        ({1023: 4, 1024: 5}, [(1023, 1024, 4, 1)], []),
        ({1023: 4, 1024: 4}, [(1023, 1024, 4, 0)], []),
        ({1023: 4, 1024: 6}, [(1023, 1023, 4, 0), (1024, 1024, 6, 0)], []),
        ({1023: 4, 1024: 3}, [(1023, 1023, 4, 0), (1024, 1024, 3, 0)], []),
        ({1023: 4, 1025: 5}, [(1023, 1023, 4, 0), (1025, 1025, 5, 0)], []),
        (
            {1022: 4, 1023: 4, 1024: 4, 1025: 5},
            [(1022, 1023, 4, 0), (1024, 1025, 4, 1)],
            [],
        ),
        ({1022: 4, 1023: 5, 1024: 7, 1025: 8}, [(1022, 1023, 4, 1), (1024, 1025, 7, 1)], []),
        (
            in_a_row(1020, 4, 1, 0) | {1030: 1, 1033: 9, 2050: 3},
            [(1020, 1023, 1, 0), (2050, 2050, 3, 0)],
            [1030],
        ),
    ],
)
def test_what_is_regular_is_a_range(
    lives: dict[int, int], ranges: list[tuple[int, ...]], words: list[int]
) -> None:
    """Of one generation or counting up, however far it goes; all else is bits and numbers."""
    assert (ranges, words) == written(lives)


@pytest.mark.parametrize("highest", [3, 2**32 - 1, 2**32, 2**33, 2**62])
@pytest.mark.parametrize("seed", range(5))
def test_packed_and_unpacked(seed: int, highest: int) -> None:
    """IDs in any lives come out again, and are written the same however they came about."""
    choose = random.Random(seed)
    ioasids = sorted(choose.sample(range(3000), choose.randrange(1, 1500)))
    lives = {ioasid: choose.randint(1, highest) for ioasid in ioasids}
    space, owner = taken(lives)
    parts = [
        (number, used, *space.lives(number, used)) for number, used in sorted(owner.members.items())
    ]
    ranges, words = pack(parts)
    found = {each.first: each.generation for each in ranges}
    for word in words:
        number, used, offsets = unpack(word)
        own = [(number << SHIFT) + bit for bit in ones(used)]
        found |= zip(own, (word.generation + each for each in offsets), strict=True)
        again: IdSpace[Owner] = IdSpace()
        again.join(owner)
        again.take_word(number, used, owner, word.generation)
        again.set_lives(number, used, word.generation, offsets, max(offsets))
        assert [lives[ioasid] for ioasid in own] == [again.generation(each) for each in own]
    assert lives == found
    choose.shuffle(ioasids)
    other, same = taken({ioasid: lives[ioasid] for ioasid in ioasids})
    assert (ranges, words) == pack(
        (number, used, *other.lives(number, used)) for number, used in sorted(same.members.items())
    )


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        (SnapshotWord(0, b"", 1, b""), "IDs that are in no word"),
        (SnapshotWord(0, b"\2", 1, b""), "IDs that are in no word"),
        (SnapshotWord(1023, b"\3", 1, b""), "IDs that are in no word"),
        (SnapshotWord(0, bytes((1,) * 129), 1, b""), "IDs that are in no word"),
        (SnapshotWord(0, b"\3", 1, bytes(4)), "not one generation for each ID"),
        (SnapshotWord(0, b"\3", 1, bytes(9)), "not one generation for each ID"),
        (SnapshotWord(0, b"\3", 1, bytes(24)), "not one generation for each ID"),
    ],
)
def test_what_is_no_word_is_refused(word: SnapshotWord, reason: str) -> None:
    """IDs of more words than one, none at all, and too few or too many generations."""
    with pytest.raises(ValueError, match=reason):
        unpack(word)


# -- the number that remembers ----------------------------------------------------------------


def test_an_ioasid_is_an_int() -> None:
    """It is equal to the bare number, hashes, shows and counts like it, and remembers its life."""
    ioasid = Ioasid(7, 3)
    assert (7, "7", "7", {7: 1}) == (ioasid, str(ioasid), repr(ioasid), {ioasid: 1})
    assert (8, int) == (ioasid + 1, type(ioasid + 1))
    assert (int, 3) == (type(int(ioasid)), ioasid.generation)
    assert ioasid == Ioasid(7, 4)


def test_copies_remember() -> None:
    """A copy, deep or pickled, is of the same life."""
    ioasid = Ioasid(7, 3)
    for made in (copy.copy(ioasid), copy.deepcopy(ioasid), pickle.loads(pickle.dumps(ioasid))):
        assert (7, 3, Ioasid) == (made, made.generation, type(made))
