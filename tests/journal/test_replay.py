"""Replay: a checkpoint and the rows since lead to the state, or to what is damaged and where."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from ioasid.core import (
    ActivateSet,
    Alloc,
    Allocator,
    AllocMany,
    AllocSet,
    Applied,
    AskAgain,
    Complete,
    Continue,
    Evict,
    ExportedIoasid,
    Free,
    FreeSet,
    ImportSet,
    IoasidRange,
    OpenSession,
    Request,
    SetExport,
    Subscribe,
    TakeStatistics,
    TokenType,
    encode,
)
from ioasid.journal._replay import (
    PART,
    Checkpoint,
    Damage,
    Replay,
    checkpoint_of,
    digest_of,
    parts_of,
)
from ioasid.journal._rows import FIRST_SEAL, Row, row_of
from tests.journal.histories import History


def written(history: History, count: int = 12) -> tuple[Checkpoint, bytes, list[Row]]:
    """A checkpoint, and rows of what a history carries out since."""
    checkpoint, data = checkpoint_of(history.core, FIRST_SEAL)
    seal, rows = FIRST_SEAL, []
    for each in history.some(count):
        rows.append(row_of(seal, [each]))
        seal = rows[-1].seal
    return checkpoint, data, rows


@pytest.mark.parametrize("rows_read", range(13))
def test_any_row_is_a_state(rows_read: int) -> None:
    """Cut after any of its rows, a journal leads to the state that there was then."""
    checkpoint, data, rows = written(History())
    replay = Replay.begin(checkpoint, data)
    for row in rows[:rows_read]:
        replay.take(row)
    expected = History()
    expected.some(rows_read)
    assert expected.core.snapshot() == replay.core.snapshot()
    assert (rows_read, expected.core.now) == (replay.requests, replay.core.now)


def test_a_checkpoint_in_the_middle() -> None:
    """From a later checkpoint the rest of the rows leads to the same state."""
    history = History()
    _, _, rows = written(history, 12)
    half = History()
    half.some(6)
    replay = Replay.begin(*checkpoint_of(half.core, rows[5].seal))
    for row in rows[6:]:
        replay.take(row)
    assert history.core.snapshot() == replay.core.snapshot()
    assert rows[-1].seal == replay.seal


def test_the_parts_of_a_checkpoint() -> None:
    """In parts it is the same bytes, with the same digest."""
    data = bytes(range(256)) * (PART // 100)
    parts = [*parts_of(data)]
    assert (data, 3) == (b"".join(parts), len(parts))
    assert digest_of([data]) == digest_of(parts)


def other(data: bytes) -> bytes:
    """The same with one bit changed in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda made, data: (made, other(data)), "digest"),
        (lambda made, data: (made, data[:-1]), "digest"),
        (lambda made, data: (replace(made, index=9), data), "a state of index 1"),
        (lambda _, data: sealed(b"\xc0" + data), "snapshot"),
    ],
)
def test_a_damaged_checkpoint(spoil: Callable[..., tuple[Any, Any]], reason: str) -> None:
    """A checkpoint that is not as it was written is damage, and named."""
    checkpoint, data = checkpoint_of(Allocator(64), FIRST_SEAL)
    with pytest.raises(Damage, match=reason) as caught:
        Replay.begin(*spoil(checkpoint, data))
    assert caught.value.place.startswith("the checkpoint of index ")


def sealed(data: bytes) -> tuple[Checkpoint, bytes]:
    """A checkpoint of some bytes that vouches for them."""
    return Checkpoint(1, FIRST_SEAL, len(data), digest_of([data])), data


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: [rows[0], rows[2]],
        lambda rows: rows[1:],
        lambda rows: [rows[0], rows[0]],
        lambda rows: [rows[1], rows[0]],
        lambda rows: [replace(rows[0], data=other(rows[0].data))],
        lambda rows: [replace(rows[0], seal=other(rows[0].seal))],
        lambda rows: [replace(rows[0], data=rows[0].data[:-1])],
    ],
)
def test_a_row_that_is_not_the_next_one(spoil: Callable[[list[Row]], list[Row]]) -> None:
    """A row that is missing, doubled, in another's place or changed is damage, and named."""
    checkpoint, data, rows = written(History())
    replay = Replay.begin(checkpoint, data)
    with pytest.raises(Damage, match="its seal is that of other bytes") as caught:  # noqa: PT012
        for row in spoil(rows):
            replay.take(row)
    assert caught.value.place.startswith("the row up to index ")


@pytest.mark.parametrize(
    ("applied", "reason"),
    [
        ([Applied(9, 20.0, 1, Alloc(0))], "does not go on from index 5"),
        ([Applied(6, 0.5, 1, Alloc(0))], "time of request 6 is before"),
        ([Applied(6, 20.0, 1, Free(9))], "request 6 is refused now"),
        ([Applied(6, 20.0, 5, Alloc(0))], "request 6 is refused now"),
        ([Applied(6, 20.0, 1, TakeStatistics())], "request 6 is none that a journal keeps"),
    ],
)
def test_a_row_that_makes_no_sense(applied: Sequence[Applied], reason: str) -> None:
    """A row whose seal is right and whose requests can't have been carried out is damage."""
    checkpoint, data, rows = written(History(), 4)
    replay = Replay.begin(checkpoint, data)
    for row in rows:
        replay.take(row)
    with pytest.raises(Damage, match=reason):
        replay.take(row_of(replay.seal, applied))


def test_what_is_done_in_parts() -> None:
    """A row may begin what later ones go on with, and nobody waits for it any more."""
    history = History(Allocator(64, part=4))
    checkpoint = checkpoint_of(history.core, FIRST_SEAL)
    asked: list[Request] = [AllocSet("vm-1", 32), AllocMany(0, 20), Subscribe(hold=True)]
    asked += [OpenSession("dsa"), FreeSet(0), Evict("dsa")]
    for request in asked:
        history.ask(request)
    replay = Replay.begin(*checkpoint)
    replay.take(row_of(FIRST_SEAL, history.applied))
    assert replay.core.has_work
    while history.core.has_work:
        history.core.handle(0, Continue())
        replay.core.handle(0, Continue())
        assert [] == [each for each in replay.core.drain() if isinstance(each, Complete)]
    assert history.core.snapshot() == replay.core.snapshot()


@pytest.mark.parametrize("part", [1000, 2])
def test_an_import_that_was_checked_in_parts(part: int) -> None:
    """However long it took to check what was imported, a row of it leads to the same state."""
    ioasids = tuple(ExportedIoasid(each, each + 100, None) for each in range(1, 6))
    export = SetExport("vm-1", TokenType.MM, 8, (IoasidRange(1, 5),), ioasids)
    core = Allocator(64, part=part)
    checkpoint = checkpoint_of(core, FIRST_SEAL)
    applied: list[Applied] = []

    def ask(session: int, request: Request) -> None:
        index = core.index
        core.handle(session, request)
        if core.index != index:
            applied.append(Applied(core.index, core.now, session, request))
        for each in core.drain():
            if isinstance(each, AskAgain):
                ask(core.session, ImportSet(export))

    ask(core.session, ImportSet(export))
    while core.has_work:
        ask(0, Continue())
    ask(core.session, ActivateSet(0))
    replay = Replay.begin(*checkpoint)
    replay.take(row_of(FIRST_SEAL, applied))
    assert core.snapshot() == replay.core.snapshot()


def test_a_row_of_nothing() -> None:
    """A row without a request is damage."""
    replay = Replay.begin(*checkpoint_of(Allocator(64), FIRST_SEAL))
    empty = row_of(FIRST_SEAL, [Applied(1, 0.0, 1, Alloc(0))])
    with pytest.raises(Damage, match="does not go on"):
        replay.take(empty)


def test_a_checkpoint_is_the_snapshot() -> None:
    """Its bytes are the encoded snapshot, which any release reads."""
    core = Allocator(64)
    assert encode(core.snapshot()) == checkpoint_of(core, FIRST_SEAL)[1]
