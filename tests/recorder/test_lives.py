"""The lives of IDs: what each waited for, exactly as the allocator says it."""

from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from ioasid.actors import open_allocator
from ioasid.core import EventKind, Explain, Explanation, Priority
from ioasid.recorder import Decided, read, record
from ioasid.recorder._lives import Lives, waits_for
from ioasid.recorder._rows import Life, Waits
from ioasid.recorder._timeline import timeline_of
from tests.recorder.recordings import ALL, of_a_storm, of_the_guest


def test_quarantine_is_split_by_tier(tmp_path: Path) -> None:
    """Each part names the tier and who it was; they leave no gap and end with the life."""
    timeline = timeline_of(read(of_the_guest(tmp_path / "guest.jsonl")))
    tiers = [
        (Waits.CPU, ("kvm:vm-1",)),
        (Waits.DEVICE, ("vdcm:dsa0",)),
        (Waits.IOMMU, ("vtd",)),
    ]
    lives = [each for each in timeline.lives if each.spans]
    assert [tiers, tiers] == [[(s.waits, s.who) for s in each.spans] for each in lives]
    assert [1, 2, 3, 4, 3, 2, 1, 0] == _without_repeats(lives[1])


def _without_repeats(life: Life) -> list[int]:
    counts = [count for _, count in life.counts]
    return [a for a, b in pairwise([*counts, None]) if a != b and a is not None]


@pytest.mark.parametrize("recorded", ALL, ids=lambda each: str(each.__name__))
def test_lives_are_whole(tmp_path: Path, recorded: object) -> None:
    """Lives of an ID never overlap, and what a quarantine waited for fills it from end to end."""
    assert callable(recorded)
    timeline = timeline_of(read(recorded(tmp_path / "any.jsonl")))
    by_id: dict[int, list[Life]] = {}
    for life in timeline.lives:
        by_id.setdefault(life.ioasid, []).append(life)
        if life.spans:
            assert life.freed == life.spans[0].first
            assert all(a.end == b.first for a, b in pairwise(life.spans))
            assert life.end == life.spans[-1].end
    for lives in by_id.values():
        assert all(a.end is not None and a.end <= b.first for a, b in pairwise(lives))


def test_as_explain_says_at_every_moment(tmp_path: Path) -> None:
    """Asked at any time why an ID was not back, the allocator named whom the bar shows."""
    path = tmp_path / "explained.jsonl"

    async def main() -> None:
        async with open_allocator(capacity=64) as host:
            vm = await host.alloc_set("vm-1", 8)
            ioasid = await host.alloc(vm.sid)
            kinds = {EventKind.FREE}
            async with (
                host.session("cpu") as cpu,
                cpu.subscribe(priority=Priority.CPU, kinds=kinds) as first,
                host.session("iommu") as iommu,
                iommu.subscribe(priority=Priority.IOMMU, kinds=kinds) as second,
                host.session("late") as late,
            ):
                await late.get(ioasid)
                await host.free(ioasid)
                await host.explain(ioasid)
                first.acknowledge(await anext(first))
                await anyio.wait_all_tasks_blocked()
                await host.explain(ioasid)
                second.acknowledge(await anext(second))
                await anyio.wait_all_tasks_blocked()
                await host.explain(ioasid)
                await late.put(ioasid)

    with record(path):
        anyio.run(main)
    recording = read(path)
    said = [
        each.answer.blockers
        for each in recording.lines
        if isinstance(each, Decided)
        and isinstance(each.request, Explain)
        and isinstance(each.answer, Explanation)
    ]
    (life,) = timeline_of(recording).lives
    assert [("cpu", "late"), ("iommu", "late"), ("late",)] == said
    assert [(Waits.CPU, ("cpu",)), (Waits.IOMMU, ("iommu",)), (Waits.REFERENCE, ("late",))] == [
        (each.waits, each.who) for each in life.spans
    ]


def test_many_at_once_are_one(tmp_path: Path) -> None:
    """A thousand IDs allocated at once are one life; one of them that differs has its own."""
    path = tmp_path / "many.jsonl"

    async def main() -> None:
        async with open_allocator(capacity=4096) as host:
            vm = await host.alloc_set("vm-1", 2000)
            await host.alloc_many(vm.sid, 1000)
            await host.attach_data(5, "x")
            await host.free(5)
            await host.free_set(vm.sid)

    with record(path):
        anyio.run(main)
    timeline = timeline_of(read(path))
    lives = [(each.ioasid, each.last, each.end is None) for each in timeline.lives]
    assert [(1, 1000, False), (5, 5, False)] == lives
    assert (0, 0) == timeline.counts[-1][1:]


def test_right_at_every_moment_of_a_storm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After every decision, all in quarantine wait for whom `explain` names, no bar lags behind."""
    compared = 0
    look = Lives.look

    def look_and_compare(lives: Lives, line: Decided, row: int, asked_by: set[str]) -> None:
        nonlocal compared
        look(lives, line, row, asked_by)
        gone = {
            each for span in line.changes.reclaimed for each in range(span.first, span.last + 1)
        }
        for ioasid in lives.quarantine.keys() - gone:
            span = lives.quarantine[ioasid].spans[-1]
            assert (span.waits, span.who) == waits_for(lives.replica.explain(ioasid))
            compared += 1

    monkeypatch.setattr(Lives, "look", look_and_compare)
    timeline_of(read(of_a_storm(tmp_path / "storm.jsonl")))
    assert compared > 1000
