"""What may still be promised: by the system, or by a group to those below it.

A quota or limit is charged to what is directly above: to its group, or to what is available in
the system. That is enough at every level, for a group's whole limit was charged one level up when
it was made.
"""

from ioasid.core._errors import CapacityExhausted, GroupExhausted
from ioasid.core._groups import Group
from ioasid.core._tables import Tables

__all__: list[str] = []


def charge(tables: Tables, group: Group | None, count: int | None) -> int:
    """Take `count` IDs from a group's limit or, without one, from what is available.

    `None` takes all there is, which has to be something. Returns what was taken. Raises
    `GroupExhausted` or `CapacityExhausted`; nothing has changed then.
    """
    taken = affordable(tables, group, count)
    _move(tables, group, taken)
    tables.in_use = True
    return taken


def affordable(tables: Tables, group: Group | None, count: int | None) -> int:
    """Return what `charge` would take, or raise what it would, and change nothing."""
    least = count or 1
    left = tables.available if group is None else group.limit - group.used
    if least > left:
        if group is None:
            raise CapacityExhausted(least, left)
        raise GroupExhausted(group.name, least, left)
    return count or left


def refund(tables: Tables, group: Group | None, count: int) -> None:
    """Give back what was charged."""
    _move(tables, group, -count)


def _move(tables: Tables, group: Group | None, count: int) -> None:
    if group is None:
        tables.available -= count
        return
    group.used += count
    if tables.changes is not None:
        tables.changes.groups.add(group.name)
