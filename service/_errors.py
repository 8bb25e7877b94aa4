"""The errors of the service, part of the one tree under `ioasid.core.IoasidError`.

A client raises the errors that its requests are refused with as in process; these are what a wire
and permissions add.
"""

import errno as _errno
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from attrs import define, fields

from ioasid.actors import RequestFailed
from ioasid.core import IoasidError, MalformedMessage, Refused, error_of

__all__ = [
    "ConnectionFailed",
    "OutcomeUnknown",
    "PermissionDenied",
    "ProtocolViolated",
    "RefusedByServer",
    "SocketDenied",
    "TooLarge",
    "TooMany",
    "UnknownRequest",
    "WrongSetting",
]


@define
class PermissionDenied(IoasidError):
    """EPERM: the role of the caller does not include it; the operator's decision, in the policy.

    The connection stays usable for what the role includes.
    """

    errno = _errno.EPERM
    template = "{role} may not {what}; the operator can allow it in the policy file"
    role: str
    what: str


@define
class WrongSetting(IoasidError):
    """EINVAL: a file of settings has what can't be; whoever wrote the `file` mends it there.

    `found` is what the `key` has, as TOML writes it.
    """

    errno = _errno.EINVAL
    template = "{file}: {key} is {found}; write {expected}"
    file: str
    key: str
    found: str
    expected: str


@define
class TooMany(IoasidError):
    """EAGAIN: the caller has as many of something as it may have at once; nothing has changed."""

    errno = _errno.EAGAIN
    template = "the limit of {what} at once is {limit}; end one of them first"
    what: str
    limit: int


@define
class TooLarge(IoasidError):
    """EMSGSIZE: a message is larger than the other side takes; the connection ends with it."""

    errno = _errno.EMSGSIZE
    template = "a message of {size} bytes is above the limit of {limit}; ask for less at once"
    size: int
    limit: int


@define
class UnknownRequest(IoasidError):
    """ENOSYS: the server knows no request of this name; a newer server may.

    The connection stays usable.
    """

    errno = _errno.ENOSYS
    template = (
        "this server does not know the request {name!r}; check its spelling, or use a newer server"
    )
    name: str


@define
class ProtocolViolated(IoasidError):
    """EPROTO: the other side does not keep to the protocol, or speaks no version of ours.

    The connection ends with it.
    """

    errno = _errno.EPROTO
    template = "the connection broke the protocol: {reason}; see the reference of the protocol"
    reason: str


@define
class ConnectionFailed(IoasidError):
    """ECONNREFUSED: there is no service at this path, or it does not answer; try again later."""

    errno = _errno.ECONNREFUSED
    template = "no allocator answers at {path}: {reason}; start `ioasid serve`, or name its socket"
    path: str
    reason: str


@define
class SocketDenied(IoasidError):
    """EACCES: there is a socket, and the files' permissions keep this user from it."""

    errno = _errno.EACCES
    template = (
        "this user may not connect to {path}; join the group that the socket belongs to, or ask "
        "the operator for another `mode` or `owner`"
    )
    path: str


@define
class OutcomeUnknown(IoasidError):
    """ECONNRESET: the connection broke over a request, and the server no longer remembers it.

    It may or may not have been decided: look at the state, then ask again. The session is usable.
    """

    errno = _errno.ECONNRESET
    template = (
        "the connection broke over {request}, and the server that came back does not know of it; "
        "look at the state, then ask again"
    )
    request: str


@define
class RefusedByServer(IoasidError):
    """EIO: a request was refused with an error that only the server knows, a newer one.

    `error` is its name, `reason` what it says and `name` its errno's name.
    """

    errno = _errno.EIO
    template = "refused with {error} ({name}: {reason})"
    error: str
    name: str
    reason: str


_OWN: Final[dict[str, type[IoasidError]]] = {
    each.__name__: each
    for each in (
        ConnectionFailed,
        OutcomeUnknown,
        PermissionDenied,
        ProtocolViolated,
        RefusedByServer,
        RequestFailed,
        SocketDenied,
        TooLarge,
        TooMany,
        UnknownRequest,
    )
}


def error_from(
    refused: Refused, others: Mapping[str, type[IoasidError]] = MappingProxyType({})
) -> IoasidError:
    """Turn a refusal into its error: one of the core's, of these, or of `others` by their names.

    One that is unknown here, or has other facts, becomes a `RefusedByServer`.
    """
    kind = others.get(refused.error) or _OWN.get(refused.error)
    if kind is not None and refused.facts.keys() == {each.name for each in fields(kind)}:
        return kind(**refused.facts)
    try:
        return error_of(refused)
    except MalformedMessage:
        return RefusedByServer(refused.error, refused.code, refused.message)
