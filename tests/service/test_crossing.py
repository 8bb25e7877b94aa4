"""The client's door: what must not cross a wire, or could not."""

from typing import Any

import pytest

from ioasid.core import (
    Abandon,
    Alloc,
    Allocated,
    AllocSet,
    Continue,
    Done,
    EventKind,
    FreeMany,
    InvalidArgument,
    IoasidRange,
    MalformedMessage,
    Notify,
    Subscribe,
    SuspendAll,
    Tick,
)
from ioasid.service._crossing import refused, without_form
from tests.core.examples import REQUESTS

OF_THE_DRIVER = (Abandon, Continue, SuspendAll, Tick)


def test_every_request_of_a_session_may_cross() -> None:
    """What drives an allocator may not, nor what is no request."""
    for request in REQUESTS:
        attached = isinstance(request, Subscribe)
        error = refused(request, attached=attached)
        assert (type(request) in OF_THE_DRIVER) is isinstance(error, MalformedMessage), request
    for stranger in (None, 5, Allocated(1), Done(), Alloc, object()):
        assert isinstance(refused(stranger, attached=False), MalformedMessage)


def test_a_subscribe_needs_somebody_to_deliver_to() -> None:
    """It is attached, and nothing else is."""
    assert None is refused(Subscribe(), attached=True)
    assert isinstance(refused(Subscribe(), attached=False), InvalidArgument)
    assert isinstance(refused(Alloc(0), attached=True), InvalidArgument)


BAD: tuple[Any, ...] = (
    AllocSet("vm-1", 4, "MM"),  # type: ignore[arg-type]
    Notify(1, "BIND"),  # type: ignore[arg-type]
    Alloc(object()),  # type: ignore[arg-type]
    FreeMany(0, ((1, 1),)),  # type: ignore[arg-type]
    FreeMany(0, [IoasidRange(1, 1)]),  # type: ignore[arg-type]
    Subscribe(kinds=frozenset({"BIND"})),  # type: ignore[arg-type]
    Subscribe(kinds={EventKind.BIND: 1}),  # type: ignore[arg-type]
    Subscribe(acknowledge_within=float("inf")),
    Subscribe(acknowledge_within=float("nan")),
)


@pytest.mark.parametrize("request_", BAD, ids=lambda bad: type(bad).__name__)
def test_what_would_look_right_on_a_wire(request_: Any) -> None:
    """A wire would make the right type of it, so it is refused before."""
    error = refused(request_, attached=isinstance(request_, Subscribe))
    assert isinstance(error, InvalidArgument)


def test_what_has_no_form() -> None:
    """The field is named, also the one that is too large."""
    cases: list[tuple[Any, str]] = [
        (Alloc(0, data="\ud800"), "data"),
        (Alloc(2**70), "sid"),
        (AllocSet("x" * 2**20), "token"),
        (FreeMany(0, (IoasidRange(1, 1),) * 400_000), "ranges"),
    ]
    for request, name in cases:
        error = without_form(request, ValueError("x"))
        assert name == error.argument
        assert len(str(error)) < 300
    assert "request" == without_form(Alloc(0), ValueError("x")).argument
