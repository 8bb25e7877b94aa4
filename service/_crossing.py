"""What a request has to be before it crosses a wire: refused at the client's door, or sent.

On a wire a list of names looks like a set of kinds, and a pair like a range; so what in process
would be a mistake in a type is looked at here, before it is bytes. Ranges of numbers and the like
are the server's to refuse, as in process.
"""

from math import isfinite
from typing import Any, Final, get_args

from ioasid.actors._annotations import check_message
from ioasid.core import (
    Abandon,
    Continue,
    EventKind,
    FreeMany,
    InvalidArgument,
    IoasidError,
    IoasidRange,
    MalformedMessage,
    Message,
    Request,
    Subscribe,
    SuspendAll,
    Tick,
    WireFormat,
    encode,
)
from ioasid.core._errors import type_name
from ioasid.service._frames import MAX_FRAME

__all__: list[str] = []

CROSSING: Final = frozenset(get_args(Request)) - {Abandon, Continue, SuspendAll, Tick}
"""Requests of a session; what drives an allocator does not cross."""
LONGEST: Final = MAX_FRAME - 1024
"""Bytes of a request, so that its frame is no larger than one may be."""


def refused(request: Any, *, attached: bool) -> IoasidError | None:
    """Return what a request is refused with at the door, `None` if it may cross."""
    kind = type(request)
    if kind not in CROSSING:
        name = type_name(kind)
        return MalformedMessage("request", f"{name} is no request of a session")
    if (kind is Subscribe) is not attached:
        if attached:
            return InvalidArgument("request", f"a {kind.__name__}", "a Subscribe to attach")
        return InvalidArgument("request", "a Subscribe", "any other, or call subscribe")
    try:
        check_message(request)
    except IoasidError as error:
        return error
    if kind is Subscribe and not all(type(each) is EventKind for each in request.kinds):
        return InvalidArgument.of("kinds", request.kinds, "a set of EventKind that is not empty")
    if kind is Subscribe and type(request.acknowledge_within) is float:
        # JSON would make "never" of what is no number.
        within = request.acknowledge_within
        if not isfinite(within):
            expected = "a number of seconds above 0, or none for never"
            return InvalidArgument.of("acknowledge_within", within, expected)
    if kind is FreeMany and not all(type(each) is IoasidRange for each in request.ranges):
        return InvalidArgument.of("ranges", request.ranges, "a tuple of IoasidRange")
    return None


def without_form(request: Message, error: Exception) -> InvalidArgument:
    """Return the refusal of a request that can't be made bytes, naming the field.

    `error` is what making bytes of all of it raised.
    """
    kind: Any = type(request)
    for name in request.__struct_fields__:
        value = getattr(request, name)
        try:
            # In place of any other field: each has a default, or is a number.
            size = len(encode(_Alone(value), WireFormat.MSGPACK))
        except IoasidError:
            return InvalidArgument.of(name, value, "what has a form on a wire")
        if size > LONGEST:
            return InvalidArgument.of(name, value, f"what fits into {MAX_FRAME} bytes")
    return InvalidArgument("request", f"a {kind.__name__} ({error})", f"at most {MAX_FRAME} bytes")


class _Alone(Message, frozen=True):
    value: Any
