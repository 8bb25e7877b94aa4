"""The trace follows its format: what a reader of traces relies on, checked by rule.

The rules are those of the Trace Event Format's documentation: the phases and the fields each has,
durations that nest, flows that begin and end inside of slices, counters that are numbers.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from ioasid.recorder import draw, read
from ioasid.recorder._rows import Timeline
from ioasid.recorder._timeline import timeline_of
from ioasid.recorder._trace import trace_of
from tests.recorder.recordings import ALL, of_a_hang, of_the_guest

FIELDS: Final = {
    "M": {"name", "pid", "tid", "ts", "args"},
    "X": {"name", "cat", "pid", "tid", "ts", "dur", "args"},
    "B": {"name", "cat", "pid", "tid", "ts", "args"},
    "E": {"name", "cat", "pid", "tid", "ts"},
    "s": {"name", "cat", "pid", "tid", "ts", "id"},
    "f": {"name", "cat", "pid", "tid", "ts", "id", "bp"},
    "C": {"name", "pid", "tid", "ts", "args"},
}
METADATA: Final = {"process_name", "process_sort_index", "thread_name", "thread_sort_index"}


def wrong_with(trace: dict[str, Any]) -> Iterator[str]:
    """What of a trace is not as the format wants it."""
    events = trace["traceEvents"]
    yield from (f"fields: {each}" for each in events if FIELDS.get(each["ph"]) != {*each} - {"ph"})
    yield from (f"time: {each}" for each in events if not 0 <= each["ts"] < 1e18)
    times = [each["ts"] for each in events]
    if times != sorted(times):
        yield "events are not in the order of their times"
    names = {each["name"] for each in events if each["ph"] == "M"}
    if not names <= METADATA:
        yield f"metadata: {names}"
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    used = {(e["pid"], e["tid"]) for e in events if e["ph"] not in "MC"}
    if used != named - (named - used) or not used <= named:
        yield f"tracks without a name: {used - named}"
    slices = [each for each in events if each["ph"] == "X"]
    yield from _overlaps(slices)
    yield from _unbalanced(events)
    yield from _flows(events, slices)
    for each in events:
        if each["ph"] == "C" and not all(type(n) is int and n >= 0 for n in each["args"].values()):
            yield f"counter: {each}"


def _overlaps(slices: list[dict[str, Any]]) -> Iterator[str]:
    ends: dict[tuple[int, int], float] = {}
    for each in slices:
        track = each["pid"], each["tid"]
        if each["dur"] <= 0 or each["ts"] < ends.get(track, 0):
            yield f"overlaps: {each}"
        ends[track] = each["ts"] + each["dur"]


def _unbalanced(events: list[dict[str, Any]]) -> Iterator[str]:
    stacks: dict[tuple[int, int], list[str]] = {}
    for each in events:
        stack = stacks.setdefault((each["pid"], each["tid"]), [])
        if each["ph"] == "B":
            stack.append(each["name"])
        elif each["ph"] == "E" and (not stack or stack.pop() != each["name"]):
            yield f"ends what did not begin last: {each}"
    yield from (f"never ends: {stack}" for stack in stacks.values() if stack)


def _flows(events: list[dict[str, Any]], slices: list[dict[str, Any]]) -> Iterator[str]:
    inside = {(each["pid"], each["tid"], each["ts"]) for each in slices}
    begun: dict[int, dict[str, Any]] = {}
    ended: set[int] = set()
    for each in events:
        if each["ph"] not in "sf":
            continue
        if (each["pid"], each["tid"], each["ts"]) not in inside:
            yield f"binds to no slice: {each}"
        number = each["id"]
        if each["ph"] == "s":
            if number in begun:
                yield f"begins twice: {each}"
            begun[number] = each
        elif number not in begun or number in ended or each["name"] != begun[number]["name"]:
            yield f"ends what did not begin: {each}"
        else:
            ended.add(number)
    if begun.keys() != ended:
        yield f"flows without an end: {begun.keys() - ended}"


@pytest.mark.parametrize("recorded", ALL, ids=lambda each: str(each.__name__))
def test_it_follows_the_format(tmp_path: Path, recorded: Callable[[Path], Path]) -> None:
    """A trace of any recording breaks none of the format's rules."""
    output = tmp_path / "trace.json"
    draw(recorded(tmp_path / "any.jsonl"), output)
    trace = msgspec.json.decode(output.read_bytes())
    assert {"traceEvents", "displayTimeUnit", "otherData"} == {*trace}
    assert [] == [*wrong_with(trace)]


def without_first(events: list[dict[str, Any]], phase: str) -> None:
    """Leave out the first event of a phase."""
    events.remove(next(each for each in events if each["ph"] == phase))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda events: events.pop(next(n for n, e in enumerate(events) if e["ph"] == "E")), "end"),
        (
            lambda events: events.pop(next(n for n, e in enumerate(events) if e["ph"] == "f")),
            "flow",
        ),
        (
            lambda events: events.pop(next(n for n, e in enumerate(events) if e["ph"] == "X")),
            "bind",
        ),
        (lambda events: events.reverse(), "order"),
        (lambda events: events[-1].update(ph="Z"), "fields"),
    ],
)
def test_the_rules_notice(
    tmp_path: Path, spoil: Callable[[list[dict[str, Any]]], object], says: str
) -> None:
    """A trace with something left out, turned round or made up breaks a rule."""
    trace = msgspec.json.decode(trace_of(drawn(of_the_guest(tmp_path / "guest.jsonl"))))
    told = [each for each in trace["traceEvents"] if each["ph"] == "s"]
    assert told
    # The first slice is of no flow; the one of the first flow is.
    trace["traceEvents"] = [
        each for each in trace["traceEvents"] if each["ph"] != "X" or each["ts"] >= told[0]["ts"]
    ]
    spoil(trace["traceEvents"])
    assert any(says in each for each in wrong_with(trace))


def drawn(path: Path) -> Timeline:
    """What is drawn of a file."""
    return timeline_of(read(path))


def test_quarantine_says_what_it_waited_for(tmp_path: Path) -> None:
    """The track of an ID has its quarantine and, in it, whom it waited for, one after the other."""
    trace = msgspec.json.decode(trace_of(drawn(of_the_guest(tmp_path / "guest.jsonl"))))
    begun = [each["name"] for each in trace["traceEvents"] if each["ph"] == "B"]
    one = ["1 of vm-1 in quarantine", "waits for CPU: kvm:vm-1", "waits for DEVICE: vdcm:dsa0"]
    assert [*one, "waits for IOMMU: vtd"] * 2 == begun


def test_what_is_open_is_marked(tmp_path: Path) -> None:
    """What is not acknowledged at the end, and a quarantine that goes on, say so."""
    trace = msgspec.json.decode(trace_of(drawn(of_a_hang(tmp_path / "hang.jsonl"))))
    marked = [
        each["name"] for each in trace["traceEvents"] if each.get("args", {}).get("open") is True
    ]
    assert ["2 of vm-1 in quarantine", "not done with FREE 2"] == marked
    counted = [each["args"] for each in trace["traceEvents"] if each["ph"] == "C"]
    assert {"in use": 2, "in quarantine": 1} == counted[-1]
