"""From lines to rows: nothing of a recording is lost, nothing is added."""

from pathlib import Path

import anyio
import pytest

from ioasid.actors import open_allocator
from ioasid.core import Acknowledge, Deliver, Refused, Subscribed
from ioasid.recorder import BadRecording, Decided, read, record
from ioasid.recorder._rows import Kind, Timeline
from ioasid.recorder._timeline import timeline_of
from tests.recorder.recordings import of_a_crash, of_a_hang, of_a_storm, of_the_guest


def drawn(path: Path) -> Timeline:
    """What is drawn of a file."""
    return timeline_of(read(path))


def texts(timeline: Timeline, kind: Kind) -> list[str]:
    """What the rows of one kind say."""
    return [each.text for each in timeline.rows if each.kind is kind]


def test_the_order_of_the_tiers(tmp_path: Path) -> None:
    """The crash in the demo: CPU, DEVICE, IOMMU are told in turn, each when the last is done."""
    timeline = drawn(of_the_guest(tmp_path / "guest.jsonl"))
    crash = next(n for n, row in enumerate(timeline.rows) if "crashes" in row.text)
    told = [
        (row.source, row.targets, row.text)
        for row in timeline.rows[crash:]
        if row.text.endswith("FREE 1") and row.kind is not Kind.DEFERRAL
    ]
    expected: list[tuple[str, tuple[str, ...], str]] = []
    for name in ("kvm:vm-1", "vdcm:dsa0", "vtd"):
        expected.append(("allocator", (name,), "FREE 1"))
        expected.append((name, ("allocator",), "done with FREE 1"))
    assert expected == told
    assert ["needs more time for FREE 1"] == texts(timeline, Kind.DEFERRAL)


def test_a_crash_and_an_eviction(tmp_path: Path) -> None:
    """A holder is down from its crash on and gone when it is evicted; what it owed ends then."""
    timeline = drawn(of_a_crash(tmp_path / "crash.jsonl"))
    assert ["live", "down", "gone"] == [each for _, each in timeline.actors["driver"].states]
    evict = next(n for n, row in enumerate(timeline.rows) if row.text.startswith("evict driver"))
    owed = [each for each in timeline.flows if each.holder == "driver"]
    assert ["BIND 1", "FREE 1"] == [each.text for each in owed]
    assert evict == owed[1].end
    assert ["lags: 2 queued messages become a Resync"] == [
        each for each in texts(timeline, Kind.EVENT) if "lags" in each
    ]


def test_what_is_open_at_the_end(tmp_path: Path) -> None:
    """An ID in quarantine, and what a subscriber has not done with, have no end."""
    timeline = drawn(of_a_hang(tmp_path / "hang.jsonl"))
    assert [("device", "FREE 2", None)] == [(f.holder, f.text, f.end) for f in timeline.flows]
    assert [None, None, None] == [each.end for each in timeline.lives]
    assert (2, 1) == timeline.counts[-1][1:]


def test_every_message_of_a_storm_has_its_row(tmp_path: Path) -> None:
    """As many deliveries and acknowledgements are drawn as the file has, and all of them end."""
    path = of_a_storm(tmp_path / "storm.jsonl")
    timeline, lines = drawn(path), read(path).lines
    decided = [each for each in lines if isinstance(each, Decided)]
    delivered = sum(isinstance(e, Deliver) for each in decided for e in each.effects)
    lags = sum("lags" in each for each in texts(timeline, Kind.EVENT))
    drawn_told = len(texts(timeline, Kind.EVENT)) - lags
    assert delivered == drawn_told
    holders = {
        each.answer.subscription: each.holder
        for each in decided
        if isinstance(each.answer, Subscribed)
    }
    acknowledged = [
        name
        for each in decided
        if isinstance(each.request, Acknowledge) and not isinstance(each.answer, Refused)
        for name in dict.fromkeys(holders[number] for number, _ in each.request.messages)
    ]
    drawn_done = [each.source for each in timeline.rows if each.kind is Kind.ACKNOWLEDGEMENT]
    assert acknowledged == drawn_done
    assert len(set(acknowledged)) > 2
    assert [each.time for each in timeline.rows] == sorted(each.time for each in timeline.rows)


def test_allocators_one_after_the_other(tmp_path: Path) -> None:
    """Those that went on from a snapshot follow, with the IDs that they began with."""
    path = tmp_path / "two.jsonl"

    async def main() -> None:
        async with open_allocator(capacity=1024) as host:
            vm = await host.alloc_set("vm-1", 512)
            await host.alloc_many(vm.sid, 200)
            await host.free(7)
            await host.attach_data(9, "x")
            async with host.session("device") as device, device.subscribe() as events:
                await device.get(9)
                await host.free(5)
                snapshot = await host.snapshot()
                await anext(events)
        async with open_allocator(snapshot=snapshot) as host:
            await host.evict("device")

    with record(path):
        anyio.run(main)
    timeline = drawn(path)
    second = [n for n, row in enumerate(timeline.rows) if row.kind is Kind.OPENING][1]
    began = [each for each in timeline.lives if each.first >= second]
    times = [each.time for each in timeline.rows]
    assert sorted(times) == times
    assert 198 == timeline.counts[-1][1]
    assert {5, 9} <= {each.ioasid for each in began}
    five = next(each for each in began if each.ioasid == 5)
    assert five.end is not None
    assert [("device",)] == [each.who for each in five.spans]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"kind":"FREE","ioasid":2', b'"kind":"FREE","ioasid":1'),
        (b'"state":"FREE_PENDING"', b'"state":"ACTIVE"'),
        (b'"allocated":[[1,3]]', b'"allocated":[[1,2]]'),
        (b'"index":3,"time"', b'"index":4,"time"'),
        (b'"type":"AllocMany","sid":0', b'"type":"AllocMany","sid":5'),
        (b'"next_sid":0', b'"next_sid":-4'),
    ],
)
def test_a_recording_that_contradicts_itself(tmp_path: Path, old: bytes, new: bytes) -> None:
    """Lines that do not follow from each other are refused, with the first that does not."""
    path = of_a_hang(tmp_path / "hang.jsonl")
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))
    with pytest.raises(BadRecording, match=r"does not follow|no such state"):
        drawn(path)
