"""Bad input: each request, each argument, everything that is no value for it.

The one rule: the typed error, and the state is as it was.
"""

import math
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

import ioasid.core
from ioasid.core import (
    Abandon,
    Acknowledge,
    ActivateSet,
    AdjustGroup,
    AdjustSet,
    Alloc,
    Allocator,
    AllocGroup,
    AllocMany,
    AllocSet,
    AllocSystemSet,
    AttachData,
    AttachSpid,
    CancelCapacity,
    CancelRange,
    CloseSession,
    Continue,
    Defer,
    Detach,
    DetachData,
    DetachSpid,
    Done,
    EventKind,
    Evict,
    Explain,
    ExportedIoasid,
    ExportSet,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    Free,
    FreeGroup,
    FreeMany,
    FreeSet,
    FreezeSet,
    Get,
    ImportSet,
    InstallCapacity,
    InvalidArgument,
    IoasidRange,
    ListGroups,
    ListHolders,
    ListSet,
    ListSets,
    Message,
    Notify,
    OpenSession,
    Priority,
    Put,
    Request,
    ReserveCapacity,
    ReserveRange,
    SessionEnded,
    SetExport,
    Subscribe,
    SuspendAll,
    SuspendSession,
    TakeSnapshot,
    TakeStatistics,
    ThawSet,
    Tick,
    TokenType,
    Unsubscribe,
)
from tests.core.helpers import Driver, refused, state


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
NO_PAGE_SIZE: list[object] = [*NO_NUMBERS, 0, -1, 1001, 2**64]
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
NO_RANGES: list[object] = [
    None,
    1,
    (1, 1),
    ((1, 1),),
    [IoasidRange(1, 1)],
    (IoasidRange(2, 1),),
    (IoasidRange(2, 2), IoasidRange(1, 1)),
    (IoasidRange(1, 2), IoasidRange(2, 3)),
    (IoasidRange(1, 1), IoasidRange(1, 1)),
    (IoasidRange(-1, 1),),
    (IoasidRange(1, 2**32 - 1),),
    (IoasidRange(1, 2**64),),
    *((IoasidRange(1, each),) for each in NO_NUMBERS),  # type: ignore[arg-type]
    *((IoasidRange(each, 1),) for each in NO_NUMBERS),  # type: ignore[arg-type]
    (IoasidRange(1, 1), Hostile()),
    Hostile(),
]
NO_MESSAGES: list[object] = [
    None,
    1,
    (1, 1),
    [(1, 1)],
    ([1, 1],),
    ((1, 1, 1),),
    ((1,),),
    frozenset(((1, 1),)),
    "11",
    Hostile(),
    ((1, 1), Hostile()),
]
NO_TIME: list[object] = ["1", None, True, 1j, math.nan, math.inf, 2**63, -(2**63), Hostile()]
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
    2**64,
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


MOVED = SetExport("new", TokenType.MM, 8, (IoasidRange(1, 4),), (ExportedIoasid(2, 7, "x"),))
SPIDS = (ExportedIoasid(1, 7, None), ExportedIoasid(2, 7, None))
NO_EXPORTED: list[object] = [None, [], (Hostile(),), ((2, 7, None),), SPIDS]
NO_EXPORT: list[object] = [
    None,
    MOVED.ranges,
    Hostile(),
    *(replace(MOVED, token=each) for each in NO_NAME),
    *(replace(MOVED, token_type=each) for each in (None, "MM", TokenType.NULL)),
    *(replace(MOVED, quota=each) for each in (*NOT_A_COUNT, 3)),
    *(replace(MOVED, ranges=each) for each in NO_RANGES),
    *(replace(MOVED, ioasids=each) for each in NO_EXPORTED),
    *(replace(MOVED, ioasids=(ExportedIoasid(each, 7, None),)) for each in [*NOT_AN_ID, 5]),  # type: ignore[arg-type]
    *(replace(MOVED, ioasids=(ExportedIoasid(2, each, 1),)) for each in without_none(NOT_AN_ID)),  # type: ignore[arg-type]
    *(replace(MOVED, ioasids=(ExportedIoasid(2, None, each),)) for each in NO_DATA),  # type: ignore[arg-type]
    replace(MOVED, ioasids=SPIDS[:1] * 2),
    replace(MOVED, ioasids=(ExportedIoasid(3, 8, None), ExportedIoasid(2, 7, None))),
]


ARGUMENTS: list[tuple[Request, str, list[object]]] = [
    (InstallCapacity(1), "total", NOT_A_COUNT),
    (ReserveCapacity(1), "count", without_none(NOT_A_COUNT)),
    (CancelCapacity(1), "count", NOT_A_COUNT),
    (ReserveRange(5, 6), "min", [*NOT_AN_ID, 64]),
    (ReserveRange(5, 6), "max", [*NOT_AN_ID, 64, 4]),
    (CancelRange(60, 61), "min", [*NOT_AN_ID, 64]),
    (CancelRange(60, 61), "max", [*NOT_AN_ID, 64, 59]),
    (AllocGroup("new", 1), "name", NO_NAME),
    (AllocGroup("new", 1), "limit", NOT_A_COUNT),
    (AllocGroup("new", 1), "parent", without_none(NO_NAME)),
    (AdjustGroup("tenant", 1), "name", NO_NAME),
    (AdjustGroup("tenant", 1), "limit", NOT_A_COUNT),
    (FreeGroup("tenant"), "name", NO_NAME),
    (ListGroups(), "after", without_none(NO_NAME)),
    (ListGroups(), "limit", [*NO_NUMBERS, 0, -1, 1001, 2**64]),
    (AllocSystemSet(1), "quota", without_none(NOT_A_COUNT)),
    (AllocSet("new", 1), "token", NO_NAME),
    (AllocSet("new", 1), "quota", without_none(NOT_A_COUNT)),
    (AllocSet("new", 1), "token_type", [None, "MM", "NULL", 0, True, Priority.CPU]),
    (AllocSet("new", 1), "group", without_none(NO_NAME)),
    (AllocSet(None, 1, TokenType.NULL), "group", without_none(NO_NAME)),
    (AllocSet(None, 1, TokenType.NULL), "token", without_none(NO_NAME)),
    (AdjustSet(0, 5), "sid", NOT_A_NUMBER),
    (AdjustSet(0, 5), "quota", NOT_A_COUNT),
    (FreeSet(0), "sid", NOT_A_NUMBER),
    (FreeSet(0), "destroy", NO_FLAG),
    (FreeSet(0), "wait", NO_FLAG),
    (FreezeSet(0), "sid", NOT_A_NUMBER),
    (FreezeSet(0), "wait", NO_FLAG),
    (ThawSet(0), "sid", NOT_A_NUMBER),
    (ExportSet(0), "sid", NOT_A_NUMBER),
    (ActivateSet(0), "sid", NOT_A_NUMBER),
    (ImportSet(MOVED), "export", NO_EXPORT),
    (ImportSet(MOVED), "group", without_none(NO_NAME)),
    (ImportSet(MOVED), "min", NOT_AN_ID),
    (ImportSet(MOVED), "max", [*without_none(NOT_AN_ID), 64]),
    (FindSid(1), "ioasid", NOT_AN_ID),
    (FindSid(1), "generation", without_none(NOT_A_NUMBER)),
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
    (FreeMany(0, ()), "sid", NOT_A_NUMBER),
    (FreeMany(0, ()), "ranges", NO_RANGES),
    (FreeMany(0, ()), "generation", without_none(NOT_A_NUMBER)),
    (FreeMany(0, ()), "missing_ok", NO_FLAG),
    (Free(1), "ioasid", NOT_AN_ID),
    (Free(1), "sid", without_none(NOT_A_NUMBER)),
    (Free(1), "wait", NO_FLAG),
    (Free(1), "generation", without_none(NOT_A_NUMBER)),
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
            (request, "generation", without_none(NOT_A_NUMBER)),
        )
    ),
    (AttachData(1, 0), "data", NO_DATA),
    (AttachSpid(1, 5), "spid", NOT_AN_ID),
    (FindBySpid(0, 5), "sid", NOT_A_NUMBER),
    (FindBySpid(0, 5), "spid", NOT_AN_ID),
    (FindBySpid(0, 5), "get", NO_FLAG),
    (ListSet(0), "sid", NOT_A_NUMBER),
    (ListSets(), "after", without_none(NOT_A_NUMBER)),
    (ListSets(), "limit", NO_PAGE_SIZE),
    (ListHolders(), "after", without_none(NO_NAME)),
    (ListHolders(), "limit", NO_PAGE_SIZE),
    (Explain(1), "ioasid", NOT_AN_ID),
    (Explain(1), "generation", without_none(NOT_A_NUMBER)),
    (Notify(1, EventKind.BIND), "kind", [None, "BIND", EventKind.RECLAIM, 0, Priority.CPU]),
    (Subscribe(), "sid", without_none(NOT_A_NUMBER)),
    (Subscribe(), "token", without_none(NO_NAME)),
    (Subscribe(sid=0), "token", ["vm-1"]),
    (Subscribe(), "kinds", NO_KINDS),
    (Subscribe(), "priority", NO_PRIORITY),
    (Subscribe(), "hold", NO_FLAG),
    (Subscribe(), "replay", NO_FLAG),
    (Subscribe(), "awaited", NO_FLAG),
    (Subscribe(), "queue_size", [*NO_NUMBERS, 0, -1, 2**20 + 1, 2**64]),
    (Subscribe(), "acknowledge_within", NO_SECONDS),
    (Unsubscribe(1), "subscription", NOT_A_NUMBER),
    (Detach(1), "subscription", NOT_A_NUMBER),
    (Acknowledge(((1, 1),)), "messages", NO_MESSAGES),
    (Defer(1, 1), "subscription", NOT_A_NUMBER),
    (Defer(1, 1), "seq", NOT_A_NUMBER),
    (OpenSession("new"), "name", NO_NAME),
    (OpenSession("new"), "owner", [each for each in NOT_A_NUMBER if each is not None]),
    (Evict("kvm"), "name", NO_NAME),
]
OF_THE_DRIVER: list[tuple[Request, str, list[object]]] = [
    (Tick(0.0), "now", NO_TIME),
    (Abandon(1), "ticket", NOT_A_NUMBER),
]
WITHOUT_ARGUMENTS: list[Request] = [
    CloseSession(),
    SuspendSession(),
    SuspendAll(),
    Continue(),
    TakeStatistics(),
    TakeSnapshot(),
]


@pytest.fixture
def driver() -> Driver:
    """An allocator with something of everything: ID 1 has all there is, ID 2 is in quarantine."""
    driver = Driver()
    driver.ask(ReserveCapacity(4))
    driver.ask(ReserveRange(60, 62))
    driver.ask(AllocGroup("tenant", 2))
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


@pytest.mark.parametrize("value", NOT_A_NUMBER)
@pytest.mark.parametrize(("at", "argument"), [(0, "subscription"), (1, "seq")])
def test_every_number_of_a_message(driver: Driver, at: int, argument: str, value: object) -> None:
    """Of the messages that are acknowledged, one that is none refuses all, by name."""
    wrong: Any = [1, 1]
    wrong[at] = value
    error = refused(driver.core, InvalidArgument, Acknowledge(((1, 1), tuple(wrong))))
    assert argument == getattr(error, "argument", None)


@pytest.mark.parametrize(
    ("request_", "argument", "values"),
    OF_THE_DRIVER,
    ids=[type(each[0]).__name__ for each in OF_THE_DRIVER],
)
def test_every_argument_of_the_driver(
    driver: Driver, request_: Request, argument: str, values: list[object]
) -> None:
    """What whoever drives the allocator says is checked as well."""
    for value in values:
        wrong = with_argument(request_, argument, value)
        refused(driver.core, InvalidArgument, wrong, 0, argument=argument)


def test_no_argument_is_left_out() -> None:
    """The table above has every argument of every request."""
    requests = [
        kind
        for kind in vars(ioasid.core).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind in Request.__args__
    ]
    wanted = {(kind, field) for kind in requests for field in kind.__struct_fields__}
    found = (*ARGUMENTS, *OF_THE_DRIVER)
    assert wanted == {(type(request), argument) for request, argument, _ in found}
    without = {kind for kind in requests if not kind.__struct_fields__}
    assert without == {type(request) for request in WITHOUT_ARGUMENTS}


def test_what_is_found_is_shown_short(driver: Driver) -> None:
    """The error shows the beginning of what came, and survives a hostile repr."""
    long = refused(driver.core, InvalidArgument, FindSet("x" * 10**6), driver.core.session)
    assert ("'" + "x" * 56 + "...") == getattr(long, "found", None)
    hostile: Any = FindSid(Hostile())  # type: ignore[arg-type]
    error = refused(driver.core, InvalidArgument, hostile, driver.core.session)
    assert "a value without a repr (Hostile)" == getattr(error, "found", None)


@pytest.mark.parametrize("session", [*without_none(NO_NUMBERS), -1, 2**64])
def test_sessions_are_checked(driver: Driver, session: Any) -> None:
    """A session that is no number is refused before the request is looked at."""
    refused(driver.core, InvalidArgument, TakeStatistics(), session, argument="session")


@pytest.mark.parametrize("name", [each for each in NO_NAME if each is not None])
def test_the_first_holder_is_checked(name: Any) -> None:
    """The name of the first holder is a name like any other."""
    with pytest.raises(InvalidArgument, match="holder is"):
        Allocator(holder=name)


@pytest.mark.parametrize(
    "request_",
    [
        AllocSet("x" * 255, 1),
        AllocSet("\N{SNOWMAN}" * 85, 1),
        Subscribe(token="\N{SNOWMAN}" * 85),
        Subscribe(queue_size=2**20, acknowledge_within=1e-9),
        Subscribe(acknowledge_within=1e300),
        Subscribe(kinds={EventKind.BIND}),  # type: ignore[arg-type]
        OpenSession("x" * 255, 2**64 - 1),
        Alloc(0, 0, 63, -(2**63)),
        ReserveRange(63, 63),
        CancelRange(0, 0),
        AllocGroup("x" * 255, 1),
        ListGroups("x" * 255, 1000),
        FreeMany(0, ()),
        Alloc(0, 63, 63, "x" * 4096),
        AttachSpid(3, 2**32 - 2),
        AttachSpid(3, 0),
        Acknowledge(((1, 2**64 - 1),)),
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
            FreezeSet(number),
            ThawSet(number),
            ExportSet(number),
            ActivateSet(number),
            Alloc(number),
            AllocMany(number, 2),
            FindBySpid(number, 9),
            ListSet(number),
            Subscribe(sid=number),
            Unsubscribe(number),
            Detach(number),
            Acknowledge(((number, 1),)),
            Defer(number, 1),
        )
    ),
    *((FreeMany(0, (IoasidRange(1, last),)), "ENOENT") for last in (5, 63, 64, 2**32 - 2)),
    (FreeMany(7, (IoasidRange(1, 1),)), "ENOENT"),
    (FreeMany(0, (IoasidRange(2**32 - 2, 2**32 - 2),)), "ENOENT"),
    (CancelRange(62, 63), "ENOENT"),
    (AllocGroup("new", 1, "nobody"), "ENOENT"),
    (AdjustGroup("nobody", 1), "ENOENT"),
    (FreeGroup("nobody"), "ENOENT"),
    (AllocSet("new", 1, group="nobody"), "ENOENT"),
    (ImportSet(MOVED, "nobody"), "ENOENT"),
    (FindSet("nobody"), "ENOENT"),
    (Evict("nobody"), "ENOENT"),
    (FindBySpid(0, 10), "ENOENT"),
    (Get(1, 2**64 - 1), "ENOENT"),
    (Get(1, None, 2**64 - 1), "ESTALE"),
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
    (ReserveCapacity(30), "ENOSPC"),
    (ReserveRange(5, 9), "EBUSY"),
    (CancelRange(60, 61), "ENOENT"),
    (AllocGroup("new", 1), "EEXIST"),
    (AdjustGroup("tenant", 3), None),
    (FreeGroup("tenant"), "ENOENT"),
    (FreeMany(0, (IoasidRange(1, 1),)), None),
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
    (Acknowledge(((1, 1),)), None),
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
    before = state(driver.core)
    if code is None:
        assert driver.ask(request_) is not None
        assert before == state(driver.core)
        return
    with pytest.raises(ioasid.core.IoasidError) as caught:
        driver.core.handle(driver.core.session, request_)
    assert code == caught.value.code
    assert before == state(driver.core)


def test_stale_numbers_are_not_taken_for_new_ones(driver: Driver) -> None:
    """Sessions and subscriptions that ended are unknown for good, though there are new ones."""
    assert Done() == driver.ask(Unsubscribe(1))
    assert 3 == driver.subscribe("host", token="vm-1")
    driver.refused(ioasid.core.UnknownSubscription, Unsubscribe(1), subscription=1)
    old = driver.session("kvm")
    driver.ask(Evict("kvm"))
    driver.sessions["kvm"] = driver.opened("kvm").session
    refused(driver.core, SessionEnded, TakeStatistics(), old)
