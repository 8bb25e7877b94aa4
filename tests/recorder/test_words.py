"""The words of a drawing: every request has some, and they are few."""

from typing import Any, get_args

import pytest

from ioasid.actors import (
    Adopted,
    Cleared,
    Draining,
    KvmRequest,
    Mapped,
    Programmed,
    TornDown,
    Unmapped,
    VdcmRequest,
    VfioRequest,
    VtdRequest,
)
from ioasid.core import (
    ActivateSet,
    Answer,
    Event,
    EventKind,
    ExportSet,
    FreezeSet,
    IoasidRange,
    Request,
    Resync,
    ThawSet,
)
from ioasid.recorder._words import (
    answered,
    asked,
    done,
    facts_of,
    fields_of,
    said_of_ranges,
    told,
)
from tests.core.examples import OUTPUTS, REQUESTS


@pytest.mark.parametrize("kind", get_args(Request), ids=lambda kind: str(kind.__name__))
def test_every_request_is_said(kind: type) -> None:
    """In words of a line, with its number if it is about one."""
    for request in (each for each in REQUESTS if type(each) is kind):
        said = asked(request)
        assert 0 < len(said) < 90
        assert said[0].islower()
        ioasid = getattr(request, "ioasid", None)
        assert ioasid is None or str(ioasid) in said
        assert facts_of(request).startswith(kind.__name__)


@pytest.mark.parametrize("kind", get_args(Answer), ids=lambda kind: str(kind.__name__))
def test_every_answer_is_said(kind: type) -> None:
    """In a few words, or none if it says nothing that the request does not."""
    answers: list[Any] = [each for each in OUTPUTS if type(each) is kind]
    assert all(len(answered(each)) < 60 for each in answers)


def test_what_is_told() -> None:
    """An event by its kind and ID, a publisher's with its name, a Resync by its size."""
    event = Event(3, EventKind.BIND, 7, 1)
    assert "BIND 7" == told(event)
    assert "BIND 7 by vfio" == told(Event(3, EventKind.BIND, 7, 1, publisher="vfio"))
    assert "Resync: 0 IDs" == told(Resync(4, ()))


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"type": "Draining", "ioasid": 4, "in_flight": 2}, "drains 4: 2 in flight"),
        ({"type": "Draining", "ioasid": 4}, "draining ioasid 4"),
        ({"type": "OpenQueue", "ioasid": 4, "deep": {"a": 1}, "on": True}, "open queue ioasid 4"),
        ({"type": "Odd"}, "odd"),
        ({}, "?"),
    ],
)
def test_steps(message: dict[str, object], says: str) -> None:
    """Known ones in words, others by name and what numbers and texts they have."""
    assert says == done(message)
    assert fields_of(message).startswith(str(message.get("type", "?")))


STEPS: tuple[type, ...] = (
    *(get_args(VfioRequest) + get_args(VtdRequest) + get_args(VdcmRequest)),
    *(KvmRequest, Adopted, Cleared, Draining, Mapped, Programmed, TornDown, Unmapped),
)


@pytest.mark.parametrize("kind", STEPS, ids=lambda kind: str(kind.__name__))
def test_every_step_of_a_host_is_said(kind: type) -> None:
    """What the host's own actors are asked and report is said in words, a VM's move included."""
    fields = dict.fromkeys(kind.__struct_fields__, 7)  # type: ignore[attr-defined]
    said = done({"type": kind.__name__} | fields)
    assert said != done({"type": f"{kind.__name__}Unknown"} | fields).replace(" unknown", "")
    assert len(said) < 40


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (FreezeSet(3), "freeze set 3"),
        (ThawSet(3), "thaw set 3"),
        (ExportSet(3), "export set 3"),
        (ActivateSet(3), "activate set 3"),
    ],
)
def test_a_move_is_said(request_: Request, says: str) -> None:
    """What makes a set move is said with the set that it is about."""
    assert says == asked(request_)


def test_ranges() -> None:
    """Neighbours are joined, and of many the first are said."""
    ranges = [IoasidRange(*each) for each in ((4, 4), (1, 3), (9, 9), (2000, 3000), (20, 21))]
    assert "1 to 4, 9, 20 to 21 and 1 more" == said_of_ranges(ranges)
