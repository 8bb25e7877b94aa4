"""Snapshots of earlier versions, as the present one would have them."""

from array import array
from collections.abc import Iterator
from typing import Any, Final

from msgspec import convert

from ioasid.core._generations import pack
from ioasid.core._snapshot import VERSION, Snapshot
from ioasid.core._space import words
from ioasid.core._terms import INVALID_IOASID

__all__: list[str] = []

_RECORD: Final = {
    "ioasid",
    "free_pending",
    "spid",
    "binding",
    "data",
    "references",
    "chain",
}
_ALIKE: Final = array("I")


def upgrade(given: dict[str, Any]) -> Snapshot:
    """Return a snapshot of version 1, decoded and not yet looked at, as one of the present version.

    Version 1 knew no generations: all lives that it has share the first one. It did not say which
    set numbers had been used, so the next set's is above all that are. Each ID with more to say
    than that it is allocated had a record of its own.

    Anything else raises what Python raises for it, or a `msgspec.MsgspecError`.
    """
    records = [record for owner in given["sets"] for record in owner["records"]]
    _require(all(record.keys() == _RECORD for record in records), "a record of another form")
    chained = {seq: record["ioasid"] for record in records for seq in record["chain"]}
    _require(
        all(record["chain"] == sorted(record["chain"]) for record in records)
        and len(chained) == sum(len(record["chain"]) for record in records),
        "events out of order",
    )
    _require(
        chained.items()
        <= {(each["event"]["seq"], each["event"]["ioasid"]) for each in given["stages"]},
        "an event of another ID",
    )
    references: dict[str, dict[int, int]] = {each["name"]: {} for each in given["holders"]}
    for record in records:
        for name, count in record["references"].items():
            references[name][record["ioasid"]] = count
    return convert(
        given
        | {
            "version": VERSION,
            "sets": [_set(each) for each in given["sets"]],
            "holders": [each | _columns(references[each["name"]]) for each in given["holders"]],
            "subscriptions": [
                each
                | {
                    "grants": [binding for binding, _ in each["grants"]],
                    "granted": [ioasid for _, ioasid in each["grants"]],
                }
                for each in given["subscriptions"]
            ],
            "stages": [
                each
                | {
                    "event": each["event"] | {"generation": 1},
                    "chained": each["event"]["seq"] in chained,
                }
                for each in given["stages"]
            ],
            "next_sid": max((each["sid"] for each in given["sets"]), default=-1) + 1,
            "generation": 1,
        },
        Snapshot,
    )


def _set(given: dict[str, Any]) -> dict[str, Any]:
    own = {name: each for name, each in given.items() if name not in ("ioasids", "records")}
    records = given["records"]
    ranges, parts = pack((number, used, 1, _ALIKE) for number, used in words(_ranges(given)))
    freed = [each["ioasid"] for each in records if each["free_pending"]]
    bound = sorted(
        (each["spid"], each["ioasid"], each["binding"])
        for each in records
        if each["spid"] is not None
    )
    spids, ioasids, bindings = zip(*bound, strict=True) if bound else ((), (), ())
    _require(
        len(bound) == sum(each["binding"] is not None for each in records),
        "a spid without a binding",
    )
    return (
        {"group": None}
        | own
        | {
            "ranges": ranges,
            "words": parts,
            "spids": spids,
            "bound": ioasids,
            "bindings": bindings,
            "freed": freed,
            "freed_at": (0.0,) * len(freed),
            "data": [
                (each["ioasid"], each["data"]) for each in records if each["data"] is not None
            ],
        }
    )


def _ranges(given: dict[str, Any]) -> Iterator[tuple[int, int]]:
    end, left = -1, given["quota"]
    for first, last in given["ioasids"]:
        left -= last - first + 1
        _require(end < first <= last < INVALID_IOASID and left >= 0, "IDs that are none")
        yield first, last
        end = last


def _columns(references: dict[int, int]) -> dict[str, Any]:
    ioasids = sorted(references)
    return {"referenced": ioasids, "counts": [references[ioasid] for ioasid in ioasids]}


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
