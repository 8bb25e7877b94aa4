"""What the live view shows in its tables, from one survey."""

from collections import defaultdict
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

from attrs import frozen
from rich.text import Text

from ioasid.core import GroupRecord, HolderRecord, LaggingSubscriber, SetRecord, SetState
from ioasid.core._plurals import counted
from ioasid.service._plain import plain
from ioasid.service._survey import Kept, Survey, ranges

__all__: list[str] = []


class Panel(StrEnum):
    """The tables."""

    QUARANTINE = "In quarantine"
    HOLDERS = "Holders"
    SETS = "Sets"
    GROUPS = "Groups"


@frozen
class Column:
    """A column: its name, and whether the greatest comes first when it is sorted by."""

    name: str
    greatest_first: bool = False


@frozen
class Line:
    """A row: what it is about, how it is sorted by each column, and what is shown."""

    key: str
    values: tuple[Any, ...]
    texts: tuple[str, ...]
    styles: tuple[str, ...]
    blockers: tuple[str, ...] = ()
    """Whom it waits for."""

    @property
    def cells(self) -> tuple[Text, ...]:
        """What is drawn; of many rows only a few are."""
        return tuple(map(Text, map(plain, self.texts), self.styles))

    @property
    def plain(self) -> str:
        """What a filter is looked for in."""
        return " ".join(self.texts).lower()


COLUMNS: Final = {
    Panel.QUARANTINE: (
        Column("ID"),
        Column("set"),
        Column("for", greatest_first=True),
        Column("waits for"),
    ),
    Panel.HOLDERS: (
        Column("holder"),
        Column("state", greatest_first=True),
        Column("for", greatest_first=True),
        Column("has", greatest_first=True),
        Column("to do", greatest_first=True),
        Column("keeps", greatest_first=True),
    ),
    Panel.SETS: (
        Column("set"),
        Column("group"),
        Column("IDs", greatest_first=True),
        Column("of", greatest_first=True),
        Column("full", greatest_first=True),
        Column("state"),
    ),
    Panel.GROUPS: (
        Column("group"),
        Column("in"),
        Column("used", greatest_first=True),
        Column("of", greatest_first=True),
        Column("full", greatest_first=True),
    ),
}
FIRST: Final = {Panel.QUARANTINE: 2, Panel.HOLDERS: 1, Panel.SETS: 4, Panel.GROUPS: 4}
"""The column by which each is sorted at first."""


def lines_of(survey: Survey) -> dict[Panel, list[Line]]:
    """Return the rows of each table, as they come."""
    keeps: dict[str, list[int]] = defaultdict(list)
    for kept in survey.kept:
        for name in kept.why.blockers:
            keeps[name].append(kept.why.ioasid)
    return {
        Panel.QUARANTINE: [_quarantined(each) for each in survey.kept],
        Panel.HOLDERS: [_holder(each, keeps[each.holder]) for each in survey.holders],
        Panel.SETS: [_set(each) for each in survey.sets],
        Panel.GROUPS: [_group(each) for each in survey.groups],
    }


def arranged(lines: Iterable[Line], wanted: str, column: int, *, reverse: bool) -> list[Line]:
    """Return the rows that have some text, in order of a column."""
    found = [each for each in lines if not wanted or wanted.lower() in each.plain]
    return sorted(found, key=lambda each: (each.values[column], each.values[0]), reverse=reverse)


def _line(key: str, *cells: tuple[Any, ...], blockers: tuple[str, ...] = ()) -> Line:
    # A cell is what is sorted by, its text, and how that looks, if not as usual.
    styles = tuple(each[2] if len(each) > 2 else "" for each in cells)
    return Line(
        key, tuple(each[0] for each in cells), tuple(each[1] for each in cells), styles, blockers
    )


def _quarantined(kept: Kept) -> Line:
    why = kept.why
    age = why.age or 0.0
    owner = f"#{why.sid}" if why.token is None else why.token
    waits = ", ".join(why.blockers)
    return _line(
        f"{why.ioasid}",
        (why.ioasid, str(why.ioasid)),
        (owner, owner),
        (age, time(age), "red" if age >= LONG else "yellow"),
        (waits, waits),
        blockers=why.blockers,
    )


LONG: Final = 10.0
"""Seconds after which a quarantine is shown in red; what a subscriber is given by default."""


def _holder(each: HolderRecord, keeps: list[int]) -> Line:
    lags = [found.lag for found in each.subscriptions if found.lag is not None]
    todo = sum(lag.queued + lag.folded for lag in lags)
    rank, state, age = _state(each, lags)
    styles = ("", "yellow", "red", "bold red")
    has = each.referenced + each.granted
    return _line(
        each.holder,
        (each.holder, each.holder),
        # Who keeps more is worse.
        ((rank, len(keeps)), state, styles[rank]),
        (age, time(age)),
        (has, str(has) if has else "-"),
        (todo, str(todo) if todo else "-"),
        (len(keeps), ranges(keeps) or "-", styles[rank] if keeps else ""),
        blockers=(each.holder,),
    )


def _state(each: HolderRecord, lags: list[LaggingSubscriber]) -> tuple[int, str, float]:
    if each.session is None:
        return 3, "down", each.age
    if any(lag.overdue for lag in lags):
        return 2, "overdue", max(lag.oldest_age for lag in lags)
    if lags:
        return 1, "lags", max(lag.oldest_age for lag in lags)
    return 0, "live", each.age


def _set(each: SetRecord) -> Line:
    name = each.token if each.token is not None else "host" if each.system else f"#{each.sid}"
    group = each.group or "-"
    state = "in quarantine" if each.state is SetState.FREE_PENDING else each.state
    return _line(
        str(each.sid),
        (name, name),
        (group, group),
        (each.allocated, f"{each.allocated:,}"),
        (each.quota, f"{each.quota:,}"),
        (each.allocated / each.quota, *bar(each.allocated, each.quota)),
        (state, state),
    )


def _group(each: GroupRecord) -> Line:
    parent = each.parent or "-"
    return _line(
        each.name,
        (each.name, each.name),
        (parent, parent),
        (each.used, f"{each.used:,}"),
        (each.limit, f"{each.limit:,}"),
        (each.used / max(each.limit, 1), *bar(each.used, each.limit)),
    )


def bar(used: int, limit: int) -> tuple[str, str]:
    """Return how full something is, as a bar of five and a number, and its style."""
    full = used / max(limit, 1)
    style = "red" if full >= 0.9 else "yellow" if full >= 0.7 else "green"
    # What is used at all shows, and what is not full does not look so.
    blocks = min(max(round(5 * full), used > 0), 5 if used >= limit > 0 else 4)
    return f"{'█' * blocks}{'░' * (5 - blocks)} {100 * full:3.0f}%", style


def curve(past: Iterable[float], width: int) -> str:
    """Return the last figures as a curve that begins at 0; its greatest is said."""
    shown = list(past)[-max(width - 16, 1) :]
    top = max([*shown, 1])
    blocks = "".join("▁▂▃▄▅▆▇█"[round(7 * each / top)] for each in shown)
    return f"{blocks} peak {max([*shown, 0]):,.0f}"


def time(seconds: float) -> str:
    """Return a time in a few letters."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds / size)} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def said_of_holder(each: HolderRecord) -> str:
    """Return what there is to say of a holder, in lines."""
    if each.session is None:
        lines = [
            f"{each.holder} is down for {time(each.age)}: it crashed, or the service restarted.",
            "What it has stays until it is back under its name, or evicted.",
        ]
    else:
        lines = [f"{each.holder} is live for {time(each.age)}."]
    lines.append(
        f"It took references of {counted(each.referenced, 'ID')}, and was granted {each.granted} "
        "with events."
    )
    for one in each.subscriptions:
        scope = one.token or ("everything" if one.sid is None else f"set {one.sid}")
        about = f"{one.priority}, subscribed to {scope}"
        lag = one.lag
        if lag is None:
            lines.append(f"{about}: it has acknowledged everything.")
            continue
        overdue = ", and is overdue" if lag.overdue else ""
        lines.append(
            f"{about}: {counted(lag.queued, 'message')} to acknowledge ({lag.deferred} put off), "
            f"{lag.folded} folded into a Resync; the oldest for {time(lag.oldest_age)}{overdue}."
        )
    return "\n".join(lines)
