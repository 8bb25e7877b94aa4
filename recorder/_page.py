"""The page: one file of HTML with what it draws in it, and the few lines of script that draw it."""

from importlib.resources import files
from pathlib import PurePath
from typing import Any, Final

import msgspec

from ioasid.recorder._rows import ALLOCATOR, ActorFacts, Life, Row, Timeline

__all__: list[str] = []

PARTS: Final = ("page.html", "page.css", "page.js")


def page_of(timeline: Timeline) -> str:
    """Return the page of a timeline. It needs nothing but itself, no network either."""
    html, style, script = (
        (files("ioasid.recorder") / name).read_text(encoding="utf-8") for name in PARTS
    )
    title = PurePath(timeline.path).name
    # Inside of a script, a "<" may begin its end.
    data = msgspec.json.encode(_data(timeline, title)).decode().replace("<", "\\u003c")
    page = html.replace("{{title}}", _escaped(title))
    for name, text in (("style", style), ("script", script), ("data", data)):
        page = page.replace(f"{{{{{name}}}}}", text, 1)
    return page


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _data(timeline: Timeline, title: str) -> dict[str, Any]:
    columns = _in_order(timeline)
    place = {actor.name: number for number, actor in enumerate(columns)}
    begun = timeline.rows[0].time
    sids = sorted({*timeline.tokens, *(each.sid for each in timeline.lives)})
    sets = {sid: number for number, sid in enumerate(sids)}

    def at(time: float | None) -> float | None:
        # In microseconds: shorter, and finer than any clock.
        return None if time is None else round((time - begun) * 1e6, 1)

    def row(each: Row) -> list[Any]:
        return [
            each.kind,
            at(each.time),
            place[each.source],
            [place[name] for name in each.targets],
            each.text,
            each.lives,
            [sets[sid] for sid in each.sids if sid in sets],
            each.ioasids,
            each.line,
            each.facts,
        ]

    def life(each: Life) -> dict[str, Any]:
        return {
            "id": each.ioasid,
            "last": each.last,
            "generation": each.generation,
            "set": sets[each.sid],
            "first": each.first,
            "begun": at(each.begun),
            "freed": each.freed,
            "freedAt": at(each.freed_at),
            "end": each.end,
            "until": each.until,
            "ended": at(each.ended),
            "counts": each.counts,
            "spans": [
                [
                    span.waits,
                    [place[who] for who in span.who if who in place],
                    span.first,
                    at(span.begun),
                    span.end,
                    at(span.ended),
                ]
                for span in each.spans
            ],
        }

    return {
        "title": title,
        "decisions": timeline.decisions,
        "actors": [
            {"name": each.name, "tier": each.tier, "states": each.states} for each in columns
        ],
        "allocator": place[ALLOCATOR],
        "sets": [timeline.tokens.get(sid, f"set {sid}") for sid in sids],
        "rows": [row(each) for each in timeline.rows],
        "lives": [life(each) for each in timeline.lives],
    }


def _in_order(timeline: Timeline) -> list[ActorFacts]:
    # Who asks is left of the allocator, who is told is right of it, in the order of the tiers.
    order = {name: place for place, name in enumerate(timeline.actors)}
    tiers = {"": 0, "allocator": 1, "CPU": 2, "DEVICE": 3, "IOMMU": 4, "LAST": 5}

    def key(actor: ActorFacts) -> tuple[int, int]:
        where = ALLOCATOR if actor.name == ALLOCATOR else actor.tier or ""
        return tiers[where], order[actor.name]

    return sorted(timeline.actors.values(), key=key)
