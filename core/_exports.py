"""Exports: what a host is told of a set that comes from another one."""

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from ioasid.core import _check
from ioasid.core._terms import Data, IoasidRange, Message, TokenType

__all__ = ["ExportedIoasid", "SetExport"]


class ExportedIoasid(Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """An ID of the source, with its spid or data or both."""

    ioasid: int
    spid: int | None
    data: Data | None


class SetExport(Message, frozen=True):
    """A frozen set: all that its next host has to know of it.

    `ranges` are its IDs on the source, ascending, without those in quarantine, which stay there and
    count in neither place but the source's; `ioasids`, ascending, are those among them with a spid
    or data. Two exports of one freeze are equal unless something was freed or unbound between
    them: that voids the first one.
    """

    token: str | None
    token_type: TokenType
    quota: int
    ranges: tuple[IoasidRange, ...]
    ioasids: tuple[ExportedIoasid, ...]


def check_export(value: Any) -> int:
    """Check an export, whatever it holds, and return how many IDs it has.

    `InvalidArgument` names "export".
    """
    # It only grows.
    return max(checking(value), default=0)


def checking(value: Any) -> Iterator[int]:
    """Check the same, and yield how many IDs were found with each range and named ID."""
    if type(value) is not SetExport:
        _check.refuse("export", value, "a SetExport")
    quota = _check.count(value.quota, "export")
    if type(value.token_type) is not TokenType:
        _check.refuse("export", value.token_type, "with a TokenType")
    if value.token_type is TokenType.MM:
        _check.name(value.token, "export")
    elif value.token is not None:
        _check.refuse("export", value.token, "without a token for a set of TokenType NULL")
    count = 0
    for first, last in _check.each_range(value.ranges, "export"):
        count += last - first + 1
        yield count
    if count > quota:
        _check.refuse("export", count, f"as many IDs as the quota of {quota} at most")
    for _ in _checking_ioasids(value.ioasids, value.ranges):
        yield count


def _checking_ioasids(found: Any, ranges: tuple[IoasidRange, ...]) -> Iterator[None]:
    if type(found) is not tuple:
        _check.refuse("export", found, "a tuple of ExportedIoasid")
    spids = set()
    ioasid, place = -1, 0
    for each in found:
        if type(each) is not ExportedIoasid:
            _check.refuse("export", each, "a tuple of ExportedIoasid")
        if _check.ioasid(each.ioasid, "export") <= ioasid:
            _check.refuse("export", each, "ascending IDs")
        ioasid = each.ioasid
        while place < len(ranges) and ranges[place].last < ioasid:
            place += 1
        if place == len(ranges) or ioasid < ranges[place].first:
            _check.refuse("export", ioasid, "an ID of its ranges")
        if each.spid is not None:
            if _check.ioasid(each.spid, "export") in spids:
                _check.refuse("export", each.spid, "spids that are all different")
            spids.add(each.spid)
        if each.data is not None:
            _check.data(each.data, "export")
        elif each.spid is None:
            _check.refuse("export", each, "a spid or data with every ID that is named")
        yield
