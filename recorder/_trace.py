"""The trace: JSON in the Trace Event Format, for Perfetto and chrome://tracing.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU

A track for every actor with a slice for each thing it did; one for every ID that was in
quarantine, with what it waited for; flows from what a subscriber was told to where it was done
with it; and counters. What one batch decided has one time: here it is a tenth of a microsecond
apart, so that it keeps its order.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, TypeAlias

import msgspec

from ioasid.recorder._rows import Life, Timeline

__all__: list[str] = []

ACTORS: Final = 1
QUARANTINE: Final = 2
"""The processes that the tracks are in."""
APART: Final = 0.1
SHORTEST: Final = 0.05
LONGEST: Final = 20.0
"""Microseconds: between two slices, and how long one is."""
OPEN: Final = "not done with"
"""How the slice begins that marks what is open at the end."""

Event: TypeAlias = dict[str, Any]


def trace_of(timeline: Timeline) -> str:
    """Return the trace of a timeline."""
    tracks = {name: number for number, name in enumerate(timeline.actors, 1)}
    times = _times(timeline)
    events = [
        *_slices(timeline, times, tracks),
        *_flows(timeline, times, tracks),
        *_quarantines(timeline, times),
        *_counters(timeline, times),
    ]
    events.sort(key=lambda event: event["ts"])
    trace = {
        "traceEvents": [*_names(timeline, tracks), *events],
        "displayTimeUnit": "ms",
        "otherData": {"recording": timeline.path, "decisions": timeline.decisions},
    }
    return msgspec.json.encode(trace).decode()


def _times(timeline: Timeline) -> list[float]:
    # In microseconds, strictly ascending; one more than there are rows: the end.
    begun = timeline.rows[0].time
    times: list[float] = []
    last = -APART
    for row in timeline.rows:
        last = max((row.time - begun) * 1e6, last + APART)
        times.append(round(last, 3))
    times.append(round(last + LONGEST, 3))
    return times


def _names(timeline: Timeline, tracks: dict[str, int]) -> Iterator[Event]:
    def named(kind: str, process: int, track: int, **args: Any) -> Event:
        return {"ph": "M", "name": kind, "pid": process, "tid": track, "ts": 0, "args": args}

    yield named("process_name", ACTORS, 0, name="actors")
    yield named("process_name", QUARANTINE, 0, name="quarantine, by ID")
    yield named("process_sort_index", ACTORS, 0, sort_index=ACTORS)
    yield named("process_sort_index", QUARANTINE, 0, sort_index=QUARANTINE)
    for name, track in tracks.items():
        tier = timeline.actors[name].tier
        yield named("thread_name", ACTORS, track, name=f"{name} ({tier})" if tier else name)
        yield named("thread_sort_index", ACTORS, track, sort_index=track)
    for ioasid in sorted({life.ioasid for life in timeline.lives if life.spans}):
        yield named("thread_name", QUARANTINE, ioasid + 1, name=f"ID {ioasid}")
        yield named("thread_sort_index", QUARANTINE, ioasid + 1, sort_index=ioasid)


# -- actors ---------------------------------------------------------------------------------------


def _slices(timeline: Timeline, times: list[float], tracks: dict[str, int]) -> Iterator[Event]:
    following: dict[str, int] = {}
    """The next row of each actor."""
    found: list[Event] = []
    for place in range(len(timeline.rows) - 1, -1, -1):
        row = timeline.rows[place]
        room = times[following.get(row.source, len(timeline.rows))] - times[place]
        following[row.source] = place
        args: dict[str, Any] = {"line": row.line}
        if row.facts:
            args["facts"] = row.facts
        if row.targets:
            args["to"] = ", ".join(row.targets)
        found.append(
            _slice(
                row.text,
                str(row.kind),
                tracks[row.source],
                times[place],
                round(max(SHORTEST, min(LONGEST, room - SHORTEST)), 3),
                args,
            )
        )
    yield from reversed(found)


def _slice(
    name: str, kind: str, track: int, time: float, lasts: float, args: dict[str, Any]
) -> Event:
    head = {"ph": "X", "name": name, "cat": kind, "pid": ACTORS, "tid": track}
    return {**head, "ts": time, "dur": lasts, "args": args}


def _flows(timeline: Timeline, times: list[float], tracks: dict[str, int]) -> Iterator[Event]:
    """Yield both ends of every flow; the end of an open one is marked by a slice of its own."""
    end = times[-1]
    for number, flow in enumerate(timeline.flows, 1):
        head = {"name": flow.text, "cat": "told", "id": number, "pid": ACTORS}
        yield {
            **head,
            "ph": "s",
            "tid": _track(timeline, flow.first, tracks),
            "ts": times[flow.first],
        }
        if flow.end is None:
            end = round(end + APART, 3)
            track, time = tracks[flow.holder], end
            text, args = f"{OPEN} {flow.text}", {"open": True}
            yield _slice(text, "open", track, time, SHORTEST, args)
        else:
            track, time = _track(timeline, flow.end, tracks), times[flow.end]
        yield {**head, "ph": "f", "bp": "e", "tid": track, "ts": time}


def _track(timeline: Timeline, row: int, tracks: dict[str, int]) -> int:
    return tracks[timeline.rows[row].source]


# -- IDs ------------------------------------------------------------------------------------------


def _quarantines(timeline: Timeline, times: list[float]) -> Iterator[Event]:
    for life in timeline.lives:
        if life.spans:
            yield from _quarantine(timeline, life, times)


def _quarantine(timeline: Timeline, life: Life, times: list[float]) -> Iterator[Event]:
    begin, end = life.spans[0].first, life.end
    if end is None:
        # Its allocator was told of no more; the row after that is another one's, or the end.
        end = len(times) - 1 if life.until is None else life.until + 1
    owner = timeline.tokens.get(life.sid, f"set {life.sid}")
    head = {"cat": "quarantine", "pid": QUARANTINE, "tid": life.ioasid + 1}
    open_: dict[str, Any] = {} if life.end is not None else {"open": True}
    whole = f"{life.ioasid} of {owner} in quarantine"
    args = {"generation": life.generation, **open_}
    yield {**head, "ph": "B", "name": whole, "ts": times[begin], "args": args}
    bounds = [*(span.first for span in life.spans), end]
    for span, (first, last) in zip(life.spans, pairwise(bounds), strict=True):
        waits = "a reference" if span.waits == "REFERENCE" else span.waits
        name = f"waits for {waits}: {', '.join(span.who)}"
        yield {**head, "ph": "B", "name": name, "ts": times[first], "args": {"who": span.who}}
        yield {**head, "ph": "E", "name": name, "ts": times[last]}
    yield {**head, "ph": "E", "name": whole, "ts": times[end]}


def _counters(timeline: Timeline, times: list[float]) -> Iterator[Event]:
    for row, live, quarantined in timeline.counts:
        args = {"in use": live, "in quarantine": quarantined}
        yield {
            "ph": "C",
            "name": "IDs",
            "pid": QUARANTINE,
            "tid": 0,
            "ts": times[row],
            "args": args,
        }
