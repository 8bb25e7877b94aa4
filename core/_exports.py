"""Exports: what a host is told of a set that comes from another one."""

from itertools import pairwise
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


def check_export(value: Any) -> list[int]:
    """Check an export, whatever it holds, and return its IDs: `InvalidArgument` names "export"."""
    if type(value) is not SetExport:
        _check.refuse("export", value, "a SetExport")
    quota = _check.count(value.quota, "export")
    if type(value.token_type) is not TokenType:
        _check.refuse("export", value.token_type, "with a TokenType")
    if value.token_type is TokenType.MM:
        _check.name(value.token, "export")
    elif value.token is not None:
        _check.refuse("export", value.token, "without a token for a set of TokenType.NULL")
    ranges = _check.ranges(value.ranges, "export")
    count = sum(last - first + 1 for first, last in ranges)
    if count > quota:
        _check.refuse("export", count, f"as many IDs as the quota of {quota} at most")
    ioasids = [ioasid for first, last in ranges for ioasid in range(first, last + 1)]
    _check_ioasids(value.ioasids, set(ioasids))
    return ioasids


def _check_ioasids(found: Any, present: set[int]) -> None:
    if type(found) is not tuple:
        _check.refuse("export", found, "a tuple of ExportedIoasid")
    spids = set()
    for each in found:
        if type(each) is not ExportedIoasid:
            _check.refuse("export", each, "a tuple of ExportedIoasid")
        if _check.ioasid(each.ioasid, "export") not in present:
            _check.refuse("export", each.ioasid, "an ID of its ranges")
        if each.spid is not None:
            if _check.ioasid(each.spid, "export") in spids:
                _check.refuse("export", each.spid, "spids that are all different")
            spids.add(each.spid)
        if each.data is not None:
            _check.data(each.data, "export")
        elif each.spid is None:
            _check.refuse("export", each, "a spid or data with every ID that is named")
    if any(one.ioasid >= other.ioasid for one, other in pairwise(found)):
        _check.refuse("export", found, "ascending IDs")
