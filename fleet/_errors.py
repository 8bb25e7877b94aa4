"""The errors of the fleet, below `ioasid.core.IoasidError`."""

import errno as _errno
from typing import Final

from attrs import define

from ioasid.core import Busy, IoasidError, NoSpace, NotFound, Refused
from ioasid.service._errors import error_from

__all__ = [
    "HistoryLost",
    "HostUnreachable",
    "MoveAborted",
    "MoveUnderWay",
    "RecordTooLarge",
    "StaleCommand",
    "StoreForbidden",
    "StoreFull",
    "StoreUnavailable",
    "TenantExhausted",
    "UnknownHost",
    "UnknownTenant",
    "UnknownVm",
    "UnreadableRecord",
    "VmElsewhere",
]


@define
class StaleCommand(IoasidError):
    """ESTALE: a command of a record that has changed since; who sent it reads the record again.

    `found` is the record's revision now. Nothing was done.
    """

    errno = _errno.ESTALE
    template = (
        "a command for {vm} is of revision {revision}, its record of {found}; read it again, "
        "somebody else decided"
    )
    vm: str
    revision: int
    found: int


@define
class HostUnreachable(IoasidError):
    """EHOSTUNREACH: the agent of a host does not answer: what was asked may have been done or not.

    It says nothing about what the host's hardware does. The move stays as it is, for anybody to
    finish or abort.
    """

    errno = _errno.EHOSTUNREACH
    template = (
        "the agent of {host!r} does not answer; a move that was begun can be finished or aborted "
        "when it is back"
    )
    host: str


@define
class StoreUnavailable(IoasidError):
    """EAGAIN: the store does not answer: what was asked of it may have been done or not.

    `reason` is what was found where it should be, `advice` what to do about that.
    """

    errno = _errno.EAGAIN
    template = "{store} does not answer: {reason}; {advice}"
    reason: str
    store: str = "the store"
    advice: str = "ask again"


@define
class StoreForbidden(StoreUnavailable):
    """EACCES: the store asks who comes, and is not content with the answer; nothing was done.

    Everything goes on when it does.
    """

    errno = _errno.EACCES
    template = "{store} does not let a fleet in: {reason}; {advice}"


@define
class StoreFull(StoreUnavailable):
    """ENOSPC: the store takes nothing more, and is only read; nothing was done.

    Everything goes on when it does.
    """

    errno = _errno.ENOSPC
    template = "{store} is full: {reason}; {advice}"


@define
class RecordTooLarge(IoasidError):
    """EMSGSIZE: the store does not take so much at once, as of a VM with many IDs that moves.

    Nothing was done. A move that comes to this is aborted.
    """

    errno = _errno.EMSGSIZE
    template = "{store} does not take so much at once: {reason}; {advice}"
    reason: str
    store: str = "the store"
    advice: str = "let it take more"


@define
class UnreadableRecord(IoasidError):
    """EBADMSG: what is under a key of the store is no record of this version of a fleet.

    Another program has put it there, or a newer version of this one. It stays as it is.
    """

    errno = _errno.EBADMSG
    template = (
        "what the store has under {key!r} is no record of a fleet: {reason}; run one version on "
        "all hosts, and keep other programs out of this store"
    )
    key: str
    reason: str


@define
class HistoryLost(IoasidError):
    """ESTALE: the store has dropped changes that were to be watched, as a compaction does.

    Read what there is, and watch from its revision on.
    """

    errno = _errno.ESTALE
    template = "the store has dropped the changes since revision {revision}; read it again"
    revision: int


@define
class VmElsewhere(IoasidError):
    """EEXIST: the token belongs to a VM of another host, or to one that moves."""

    errno = _errno.EEXIST
    template = "{vm} is {phase} at {host} already; choose another token, a fleet has each once"
    vm: str
    phase: str
    host: str


@define
class TenantExhausted(NoSpace):
    """ENOSPC: more was asked for than is left of what a tenant may have on all hosts."""

    template = (
        "asked for {asked} more for {tenant}, which has {used} of the {limit} that it may have on "
        "all hosts; free some, or raise its limit"
    )
    tenant: str
    asked: int
    used: int
    limit: int


@define
class UnknownVm(NotFound):
    """ENOENT: the VM has no record, or is not on the host whose agent was asked."""

    template = "there is no VM {vm!r} {where}; it is gone, or was never made"
    vm: str
    where: str


@define
class UnknownHost(NotFound):
    """ENOENT: the fleet has no host of this name: none is alive, and no VM is said to be there."""

    template = (
        "there is no host {host!r} in the fleet; those that are alive: {alive}. One joins when "
        "its service runs with the fleet's URL"
    )
    host: str
    alive: str


@define
class UnknownTenant(NotFound):
    """ENOENT: the fleet knows nothing of a tenant, which has neither a limit nor a VM."""

    template = (
        "there is no tenant {tenant!r} in the fleet; it has neither a limit nor a VM. Setting a "
        "limit makes it known"
    )
    tenant: str


@define
class MoveUnderWay(Busy):
    """EBUSY: the VM is moving already; finish or abort that first."""

    template = "{vm} is moving already, {phase} at {host}; finish or abort that first"
    vm: str
    phase: str
    host: str


@define
class MoveAborted(IoasidError):
    """ECANCELED: the move was aborted, by whoever it was; the VM runs at `host`, as before."""

    errno = _errno.ECANCELED
    template = "the move of {vm} was aborted and it runs at {host} as before: {reason}"
    vm: str
    host: str
    reason: str


_OWN: Final[dict[str, type[IoasidError]]] = {
    each.__name__: each
    for each in (
        HistoryLost,
        HostUnreachable,
        MoveAborted,
        MoveUnderWay,
        RecordTooLarge,
        StaleCommand,
        StoreForbidden,
        StoreFull,
        StoreUnavailable,
        TenantExhausted,
        UnknownHost,
        UnknownTenant,
        UnknownVm,
        UnreadableRecord,
        VmElsewhere,
    )
}


def error_of(refused: Refused) -> IoasidError:
    """Turn what another process refused with into the error again."""
    return error_from(refused, _OWN)
