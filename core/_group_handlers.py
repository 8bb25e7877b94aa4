"""The requests about groups."""

from bisect import bisect_left, insort

from ioasid.core import _check
from ioasid.core._answers import Answer, GroupPage, GroupRecord
from ioasid.core._budget import charge, refund
from ioasid.core._errors import GroupExists, GroupNotEmpty, LimitBelowUse
from ioasid.core._groups import Group
from ioasid.core._handlers import DONE, Handlers
from ioasid.core._holders import Holder
from ioasid.core._pages import page
from ioasid.core._requests import AdjustGroup, AllocGroup, FreeGroup, ListGroups
from ioasid.core._terms import MAX_GROUP_DEPTH

__all__: list[str] = []


class GroupHandlers(Handlers):
    """The handlers of groups."""

    def alloc_group(self, _: Holder, request: AllocGroup) -> Answer:
        """Make a group, its limit taken from one level up."""
        tables = self._tables
        name = _check.name(request.name, "name")
        limit = _check.count(request.limit, "limit")
        parent = self._group_or_none(request.parent, "parent")
        if name in tables.groups:
            raise GroupExists(name)
        if parent is not None and parent.depth >= MAX_GROUP_DEPTH:
            above = MAX_GROUP_DEPTH - 2
            _check.refuse("parent", parent.name, f"a group that {above} others are above at most")
        charge(tables, parent, limit)
        group = tables.groups[name] = Group(name, parent, limit)
        insort(tables.group_names, name)
        self._note(group)
        return group_record(group)

    def adjust_group(self, _: Holder, request: AdjustGroup) -> Answer:
        """Change a group's limit."""
        limit = _check.count(request.limit, "limit")
        group = self._group(request.name, "name")
        if limit < group.used:
            raise LimitBelowUse(group.name, limit, group.used)
        if limit > group.limit:
            charge(self._tables, group.parent, limit - group.limit)
        else:
            refund(self._tables, group.parent, group.limit - limit)
        group.limit = limit
        self._note(group)
        return group_record(group)

    def free_group(self, _: Holder, request: FreeGroup) -> Answer:
        """Remove a group that nothing is in."""
        tables = self._tables
        group = self._group(request.name, "name")
        if group.used:
            raise GroupNotEmpty(group.name, group.used)
        refund(tables, group.parent, group.limit)
        del tables.groups[group.name]
        del tables.group_names[bisect_left(tables.group_names, group.name)]
        self._note(group)
        return DONE

    def list_groups(self, _: Holder, request: ListGroups) -> Answer:
        """Look up some of the groups."""
        tables = self._tables
        after = request.after
        if after is not None:
            _check.name(after, "after")
        names, following = page(tables.group_names, after, _check.page_size(request.limit))
        return GroupPage(tuple(group_record(tables.groups[each]) for each in names), following)

    def _note(self, group: Group) -> None:
        if self._tables.changes is not None:
            self._tables.changes.groups.add(group.name)


def group_record(group: Group) -> GroupRecord:
    """Return all there is to know of a group."""
    parent = None if group.parent is None else group.parent.name
    return GroupRecord(group.name, parent, group.limit, group.used)
