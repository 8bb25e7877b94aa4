"""Bad input: each request, each argument, everything that is no value for it.

The one rule: the typed error, and the state is as it was.
"""

from typing import Any

import msgspec
import pytest

import ioasid.core
from ioasid.core import (
    Acknowledge,
    AdjustSet,
    Alloc,
    Allocator,
    AllocMany,
    AllocSet,
    AllocSystemSet,
    AttachData,
    AttachSpid,
    CancelCapacity,
    CloseSession,
    Defer,
    Detach,
    DetachData,
    DetachSpid,
    Done,
    EventKind,
    Evict,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    Free,
    FreeSet,
    Get,
    InstallCapacity,
    InvalidArgument,
    ListSet,
    Message,
    Notify,
    OpenSession,
    Priority,
    Put,
    Request,
    ReserveCapacity,
    SessionEnded,
    Subscribe,
    SuspendSession,
    TakeStatistics,
    TokenType,
    Unsubscribe,
)
from tests.core.helpers import Driver, refused


class Number(int):
    """An int that is more than an int."""


class Text(str):
    """A str that is more than a str."""

    __slots__ = ()


class Hostile:
    """An object that can't even be shown."""

    def __repr__(self) -> str:
        """Fail."""
        raise RuntimeError("no repr for you")


NO_NUMBERS: list[object] = [
    True,
    False,
    1.0,
    float("nan"),
    "1",
    b"1",
    [],
    {},
    Number(1),
    Hostile(),
    EventKind.BIND,
    None,
]
NOT_AN_ID: list[object] = [*NO_NUMBERS, -1, 2**32 - 1, 2**32, 2**64, -(2**64)]
NOT_A_NUMBER: list[object] = [*NO_NUMBERS, -1, 2**64, -(2**64)]
NOT_A_COUNT: list[object] = [*NO_NUMBERS, 0, -1, 2**32, 2**64]
NO_FLAG: list[object] = [0, 1, None, "yes", [], Hostile()]
NO_NAME: list[object] = [
    None,
    "",
    "x" * 256,
    "\N{SNOWMAN}" * 86,
    "x" * 10**6,
    "\ud800",
    "vm-\udfff",
    b"vm-1",
    7,
    True,
    Text("vm-1"),
    EventKind.BIND,
    Hostile(),
]
NO_DATA: list[object] = [
    None,
    True,
    1.0,
    b"",
    [],
    2**64,
    -(2**63) - 1,
    "x" * 4097,
    "\N{SNOWMAN}" * 1366,
    "\ud800",
    Number(1),
    Text("x"),
    Hostile(),
]
NO_KINDS: list[object] = [
    None,
    frozenset(),
    set(),
    ["BIND"],
    frozenset(("BIND",)),
    {EventKind.BIND, "FREE"},
    (EventKind.BIND,),
    EventKind.BIND,
    "BIND",
    7,
]
NO_PRIORITY: list[object] = [None, "CPU", 0, True, EventKind.BIND]
NO_SECONDS: list[object] = [
    0,
    -1,
    0.0,
    -0.5,
    float("nan"),
    float("inf"),
    -float("inf"),
    True,
    "10",
    10**400,
    [],
]


def without_none(values: list[object]) -> list[object]:
    """The same, where None means something."""
    return [value for value in values if value is not None]


ARGUMENTS: list[tuple[Request, str, list[object]]] = [
    (InstallCapacity(1), "total", NOT_A_COUNT),
    (ReserveCapacity(1), "count", without_none(NOT_A_COUNT)),
    (CancelCapacity(1), "count", NOT_A_COUNT),
    (AllocSystemSet(1), "quota", without_none(NOT_A_COUNT)),
    (AllocSet("new", 1), "token", NO_NAME),
    (AllocSet("new", 1), "quota", without_none(NOT_A_COUNT)),
    (AllocSet("new", 1), "token_type", [None, "MM", "NULL", 0, True, Priority.CPU]),
    (AllocSet(None, 1, TokenType.NULL), "token", without_none(NO_NAME)),
    (AdjustSet(0, 5), "sid", NOT_A_NUMBER),
    (AdjustSet(0, 5), "quota", NOT_A_COUNT),
    (FreeSet(0), "sid", NOT_A_NUMBER),
    (FreeSet(0), "destroy", NO_FLAG),
    (FreeSet(0), "wait", NO_FLAG),
    (FindSid(1), "ioasid", NOT_AN_ID),
    (FindSet("vm-1"), "token", NO_NAME),
    (FindSet(sid=0), "sid", without_none(NOT_A_NUMBER)),
    (FindSet(sid=0), "token", ["vm-1"]),
    (Alloc(0), "sid", NOT_A_NUMBER),
    (Alloc(0), "min", NOT_AN_ID),
    (Alloc(0), "max", [*without_none(NOT_AN_ID), 64, 2**32 - 2]),
    (Alloc(0), "data", without_none(NO_DATA)),
    (AllocMany(0, 1), "sid", NOT_A_NUMBER),
    (AllocMany(0, 1), "count", NOT_A_COUNT),
    (AllocMany(0, 1), "min", NOT_AN_ID),
    (AllocMany(0, 1), "max", [*without_none(NOT_AN_ID), 64]),
    (Free(1), "ioasid", NOT_AN_ID),
    (Free(1), "sid", without_none(NOT_A_NUMBER)),
    (Free(1), "wait", NO_FLAG),
    *(
        case
        for request in (
            Get(1),
            Put(1),
            Find(1),
            AttachData(1, 0),
            DetachData(1),
            AttachSpid(1, 5),
            DetachSpid(1),
            Notify(1, EventKind.BIND),
        )
        for case in (
            (request, "ioasid", NOT_AN_ID),
            (request, "sid", without_none(NOT_A_NUMBER)),
        )
    ),
    (AttachData(1, 0), "data", NO_DATA),
    (AttachSpid(1, 5), "spid", NOT_AN_ID),
    (FindBySpid(0, 5), "sid", NOT_A_NUMBER),
    (FindBySpid(0, 5), "spid", NOT_AN_ID),
    (FindBySpid(0, 5), "get", NO_FLAG),
    (ListSet(0), "sid", NOT_A_NUMBER),
    (Notify(1, EventKind.BIND), "kind", [None, "BIND", EventKind.RECLAIM, 0, Priority.CPU]),
    (Subscribe(), "sid", without_none(NOT_A_NUMBER)),
    (Subscribe(), "token", without_none(NO_NAME)),
    (Subscribe(sid=0), "token", ["vm-1"]),
    (Subscribe(), "kinds", NO_KINDS),
    (Subscribe(), "priority", NO_PRIORITY),
    (Subscribe(), "hold", NO_FLAG),
    (Subscribe(), "replay", NO_FLAG),
    (Subscribe(), "queue_size", [*NO_NUMBERS, 0, -1, 2**20 + 1, 2**64]),
    (Subscribe(), "acknowledge_within", NO_SECONDS),
    (Unsubscribe(1), "subscription", NOT_A_NUMBER),
    (Detach(1), "subscription", NOT_A_NUMBER),
    (Acknowledge(1, 1), "subscription", NOT_A_NUMBER),
    (Acknowledge(1, 1), "seq", NOT_A_NUMBER),
    (Defer(1, 1), "subscription", NOT_A_NUMBER),
    (Defer(1, 1), "seq", NOT_A_NUMBER),
    (OpenSession("new"), "name", NO_NAME),
    (Evict("kvm"), "name", NO_NAME),
]
WITHOUT_ARGUMENTS: list[Request] = [CloseSession(), SuspendSession(), TakeStatistics()]


@pytest.fixture
def driver() -> Driver:
    """An allocator with something of everything: ID 1 has all there is, ID 2 is in quarantine."""
    driver = Driver()
    driver.ask(ReserveCapacity(4))
    driver.set()
    driver.subscribe("host", token="vm-1", queue_size=1)
    driver.subscribe("kvm", sid=0, hold=True)
    driver.bound(spid=9)
    driver.ask(Get(1))
    driver.alloc()
    driver.ask(Get(2))
    driver.free(2)
    return driver


def with_argument(request: Request, argument: str, value: object) -> Any:
    """The same request with another value for one argument."""
    return msgspec.structs.replace(request, **{argument: value})


@pytest.mark.parametrize(
    ("request_", "argument", "values"),
    ARGUMENTS,
    ids=[f"{type(each[0]).__name__}-{each[1]}" for each in ARGUMENTS],
)
def test_every_argument(
    driver: Driver, request_: Request, argument: str, values: list[object]
) -> None:
    """What is no value for an argument is refused, by name, and changes nothing."""
    for value in values:
        wrong = with_argument(request_, argument, value)
        error = refused(driver.core, InvalidArgument, wrong, driver.core.session)
        assert argument == getattr(error, "argument", None)
        assert len(str(error)) < 300


def test_no_argument_is_left_out() -> None:
    """The table above has every argument of every request."""
    requests = [
        kind
        for kind in vars(ioasid.core).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind in Request.__args__
    ]
    wanted = {(kind, field) for kind in requests for field in kind.__struct_fields__}
    assert wanted == {(type(request), argument) for request, argument, _ in ARGUMENTS}
    without = {kind for kind in requests if not kind.__struct_fields__}
    assert without == {type(request) for request in WITHOUT_ARGUMENTS}


def test_what_is_found_is_shown_short(driver: Driver) -> None:
    """The error shows the beginning of what came and its type, and survives a hostile repr."""
    long = refused(driver.core, InvalidArgument, FindSet("x" * 10**6), driver.core.session)
    assert ("'" + "x" * 56 + "... (str)") == getattr(long, "found", None)
    hostile: Any = FindSid(Hostile())  # type: ignore[arg-type]
    error = refused(driver.core, InvalidArgument, hostile, driver.core.session)
    assert "a value without a repr (Hostile)" == getattr(error, "found", None)


@pytest.mark.parametrize("session", [*without_none(NO_NUMBERS), -1, 2**64])
def test_sessions_are_checked(driver: Driver, session: Any) -> None:
    """A session that is no number is refused before the request is looked at."""
    refused(driver.core, InvalidArgument, TakeStatistics(), session, argument="session")


@pytest.mark.parametrize("name", NO_NAME)
def test_the_first_holder_is_checked(name: Any) -> None:
    """The name of the first holder is a name like any other."""
    with pytest.raises(InvalidArgument, match="name"):
        Allocator(holder=name)


@pytest.mark.parametrize(
    "request_",
    [
        AllocSet("x" * 255, 1),
        AllocSet("\N{SNOWMAN}" * 85, 1),
        Subscribe(token="\N{SNOWMAN}" * 85),
        Subscribe(queue_size=2**20, acknowledge_within=1e-9),
        Subscribe(acknowledge_within=10**300),
        Subscribe(kinds={EventKind.BIND}),  # type: ignore[arg-type]
        OpenSession("x" * 255),
        Alloc(0, 0, 63, -(2**63)),
        Alloc(0, 63, 63, "x" * 4096),
        AttachSpid(3, 2**32 - 2),
        AttachSpid(3, 0),
        Acknowledge(1, 2**64 - 1),
        Defer(1, 2**64 - 1),
    ],
    ids=lambda each: type(each).__name__,
)
def test_the_edges_are_inside(driver: Driver, request_: Request) -> None:
    """What the ranges include is taken."""
    driver.alloc()
    assert driver.ask(request_) is not None


UNKNOWN: list[tuple[Request, str]] = [
    *(
        (request, "ENOENT")
        for ioasid in (5, 63, 64, 2**32 - 2)
        for request in (
            FindSid(ioasid),
            Free(ioasid),
            Free(ioasid, wait=True),
            Get(ioasid),
            Put(ioasid),
            Find(ioasid),
            AttachData(ioasid, 0),
            DetachData(ioasid),
            AttachSpid(ioasid, 7),
            DetachSpid(ioasid),
            Notify(ioasid, EventKind.BIND),
        )
    ),
    *(
        (request, "ENOENT")
        for number in (7, 2**32 - 1, 2**64 - 1)
        for request in (
            AdjustSet(number, 5),
            FreeSet(number),
            Alloc(number),
            AllocMany(number, 2),
            FindBySpid(number, 9),
            ListSet(number),
            Subscribe(sid=number),
            Unsubscribe(number),
            Detach(number),
            Acknowledge(number, 1),
            Defer(number, 1),
        )
    ),
    (FindSet("nobody"), "ENOENT"),
    (Evict("nobody"), "ENOENT"),
    (FindBySpid(0, 10), "ENOENT"),
    (Get(1, 2**64 - 1), "EACCES"),
]


@pytest.mark.parametrize(
    ("request_", "code"), UNKNOWN, ids=[type(each[0]).__name__ for each in UNKNOWN]
)
def test_unknown(driver: Driver, request_: Request, code: str) -> None:
    """What does not exist, or is not the caller's, is said so, however large its number."""
    before = driver.core.snapshot()
    with pytest.raises(ioasid.core.IoasidError) as caught:
        driver.core.handle(driver.core.session, request_)
    assert code == caught.value.code
    assert before == driver.core.snapshot()


TWICE: list[tuple[Request, str | None]] = [
    (InstallCapacity(64), "EBUSY"),
    (CancelCapacity(4), "EINVAL"),
    (ReserveCapacity(44), "ENOSPC"),
    (AllocSystemSet(1), "EEXIST"),
    (AllocSet("new", 1), "EEXIST"),
    (AdjustSet(0, 20), None),
    (FreeSet(0), None),
    (Alloc(0, 5, 5), "ENOSPC"),
    (AllocMany(0, 10), "EDQUOT"),
    (Free(1), None),
    (Put(1), "EINVAL"),
    (AttachData(1, 0), "EBUSY"),
    (DetachData(1), None),
    (DetachSpid(1), "EINVAL"),
    (Subscribe(sid=0), "EEXIST"),
    (Unsubscribe(1), "ENOENT"),
    (Detach(1), None),
    (Acknowledge(1, 1), None),
    (Defer(1, 1), None),
    (OpenSession("new"), "EEXIST"),
    (Evict("kvm"), "ENOENT"),
    (CloseSession(), "ESTALE"),
    (SuspendSession(), "ESTALE"),
]


@pytest.mark.parametrize(
    ("request_", "code"), TWICE, ids=[type(each[0]).__name__ for each in TWICE]
)
def test_twice(driver: Driver, request_: Request, code: str | None) -> None:
    """Everything twice: the second time is a no-op, or refused and changes nothing."""
    if not isinstance(request_, InstallCapacity):
        assert driver.ask(request_) is not None
    before = driver.core.snapshot()
    if code is None:
        assert driver.ask(request_) is not None
        assert before == driver.core.snapshot()
        return
    with pytest.raises(ioasid.core.IoasidError) as caught:
        driver.core.handle(driver.core.session, request_)
    assert code == caught.value.code
    assert before == driver.core.snapshot()


def test_stale_numbers_are_not_taken_for_new_ones(driver: Driver) -> None:
    """Sessions and subscriptions that ended are unknown for good, though there are new ones."""
    assert Done() == driver.ask(Unsubscribe(1))
    assert 3 == driver.subscribe("host", token="vm-1")
    driver.refused(ioasid.core.UnknownSubscription, Unsubscribe(1), subscription=1)
    old = driver.session("kvm")
    driver.ask(Evict("kvm"))
    driver.sessions["kvm"] = driver.core.open_session("kvm").session
    refused(driver.core, SessionEnded, TakeStatistics(), old)
