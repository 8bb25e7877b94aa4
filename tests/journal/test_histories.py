"""Random histories, cut at every row: each recovers to the state that it had there."""

import random
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from ioasid.core import (
    Allocator,
    Answer,
    Applied,
    Continue,
    Request,
    Tick,
    decode_snapshot,
    encode,
)
from ioasid.journal._replay import Replay, checkpoint_of, digest_of
from ioasid.journal._rows import FIRST_SEAL, Row, row_of
from ioasid.journal._store import Store
from tests.core.play import SETTINGS, Play, Step, steps
from tests.core.strategies import CAPACITY
from tests.journal.histories import opened


class Noting(Allocator):
    """An allocator that notes what it carried out, a second after the other, and the states."""

    def __init__(self) -> None:
        self.carried_out: list[Applied] | None = None
        super().__init__(CAPACITY, part=2)
        self.carried_out = []
        self.digests = {self.index: digest(self)}

    def handle(self, session: int, request: Request) -> Answer:
        """Carry a request out, and note it if it changed something."""
        if self.carried_out is None:
            # The first session is there from the beginning.
            return super().handle(session, request)
        before = self.index
        super().handle(0, Tick(self.now + 1.0))
        answer = super().handle(session, request)
        self.drain()
        if self.index != before:
            self.carried_out.append(Applied(self.index, self.now, session, request))
            self.digests[self.index] = digest(self)
        return answer

    def go_on(self) -> None:
        """Do a part of what is left to do."""
        if self.has_work:
            self.handle(0, Continue())


def digest(core: Allocator) -> bytes:
    """What tells a state from every other."""
    return digest_of([encode(core.snapshot())])


def rows_of(core: Noting, chance: random.Random) -> list[Row]:
    """What was carried out, in commits of some requests each."""
    rows, seal, first = [], FIRST_SEAL, 0
    applied = core.carried_out or []
    while first < len(applied):
        count = chance.randint(1, 4)
        rows.append(row_of(seal, applied[first : first + count]))
        seal, first = rows[-1].seal, first + count
    return rows


@given(steps, st.integers(0, 2**20))
@SETTINGS
def test_every_row_leads_to_its_state(history: list[Step], seed: int) -> None:
    """Decided again row by row, a history has the state of each; so it has through a checkpoint."""
    core = Noting()
    first = checkpoint_of(core, FIRST_SEAL)
    Play(core).run(history, core.go_on)
    chance = random.Random(seed)
    replay = Replay.begin(*first)
    for row in rows_of(core, chance):
        replay.take(row)
        assert core.digests[row.last] == digest(replay.core)
        if chance.random() < 0.2:
            replay = Replay.begin(*checkpoint_of(replay.core, replay.seal))
            assert core.digests[row.last] == digest(replay.core)
    again = Allocator.restore(decode_snapshot(encode(replay.core.snapshot())))
    assert core.digests[core.index] == digest(again)


@given(steps, st.integers(0, 2**20))
@settings(SETTINGS, max_examples=4)
def test_a_file_that_ends_at_any_row(history: list[Step], seed: int) -> None:
    """A journal that ends with any row recovers to the state there."""
    core = Noting()
    first = checkpoint_of(core, FIRST_SEAL)
    Play(core).run(history, core.go_on)
    rows = rows_of(core, random.Random(seed))
    with TemporaryDirectory() as folder:
        path = Path(folder, "journal")
        store = Store(path)
        store.replace(*first, "")
        for row in rows:
            store.append(row)
        store.close()
        for row in reversed(rows):
            with opened(path) as (_, found):
                assert row.last == found.index
                assert core.digests[row.last] == digest(found)
            with sqlite3.connect(path) as file:
                file.execute("DELETE FROM row WHERE last = ?", (row.last,))
            file.close()
