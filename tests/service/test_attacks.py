"""Attacks: what a role, another user or a wild client tries, and what everybody else notices.

The table of roles is written here once more, from what each rule is to stop.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Final, get_type_hints

import anyio
import anyio.abc
import msgspec
import pytest
from anyio.lowlevel import checkpoint
from msgspec.structs import replace

from ioasid.core import (
    Acknowledge,
    AdjustGroup,
    AdjustSet,
    Alloc,
    Allocated,
    AllocGroup,
    AllocMany,
    AllocSet,
    AllocSystemSet,
    AttachData,
    AttachSpid,
    CancelCapacity,
    Defer,
    DetachData,
    DetachSpid,
    EventKind,
    Evict,
    Explain,
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
    HolderPage,
    IoasidRange,
    ListGroups,
    ListHolders,
    ListSet,
    ListSets,
    Notify,
    OpenSession,
    Put,
    Refused,
    Request,
    ReserveCapacity,
    Subscribe,
    Subscribed,
    TakeSnapshot,
    TakeStatistics,
    ThawSet,
    TokenType,
    WireFormat,
)
from ioasid.service import (
    Answered,
    Ask,
    Limits,
    Narrow,
    Narrowed,
    Policy,
    Role,
    Rule,
    connect_allocator,
)
from ioasid.service._memory import is_look
from tests.core.examples import REQUESTS
from tests.service.services import UID, Raw, Service, a_client, a_raw_client, a_service, everybody

pytestmark = pytest.mark.anyio

A_FALSE_DEATH: Final = {"Evict"}
A_THEFT: Final = {
    *("InstallCapacity", "ReserveCapacity", "CancelCapacity", "ReserveRange", "CancelRange"),
    *("AllocGroup", "AdjustGroup", "FreeGroup", "AllocSystemSet", "AllocSet", "AdjustSet"),
}
TWO_HOSTS: Final = {"FreezeSet", "ThawSet", "ExportSet", "ImportSet", "ActivateSet"}
A_LOOK_AT_EVERYTHING: Final = {"TakeSnapshot"}
OPERATORS: Final = A_FALSE_DEATH | A_THEFT | TWO_HOSTS | A_LOOK_AT_EVERYTHING
LEARNING_OF_OTHERS: Final = {
    *("ListHolders", "ListGroups", "TakeStatistics"),
}
NOBODYS: Final = {"Tick", "Abandon", "Continue", "SuspendAll"}
"""They drive an allocator, and are no requests of a session."""
ENDING: Final = {"CloseSession", "SuspendSession"}
POLICIES: Final = {
    "operator": everybody(Role.OPERATOR),
    "driver": everybody(Role.DRIVER, holders=("drv:",)),
    "tenant": everybody(Role.TENANT, holders=("drv:",), tokens=("vm-1",)),
}
DENIED: Final = {
    "operator": set[str](),
    "driver": OPERATORS,
    "tenant": OPERATORS | LEARNING_OF_OTHERS,
}


async def joined(client: Raw, name: str = "drv:1") -> int:
    """Say hello and open a session; its number."""
    await client.hello()
    session: int = (await client.ask(Ask(OpenSession(name), 1))).session
    return session


def told(request: Request) -> bool:
    """Whether nobody is answered."""
    return isinstance(request, Acknowledge | Defer)


@pytest.mark.parametrize("wire_format", list(WireFormat))
@pytest.mark.parametrize("role", POLICIES)
async def test_every_request_of_every_role(role: str, wire_format: WireFormat) -> None:
    """What a rule denies is denied by name and changes nothing; nothing else is denied."""
    async with a_service(capacity=1 << 16) as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc_set("vm-2", 8)
        await host.alloc(1)
        service.server.policy = POLICIES[role]
        denied: set[str] = set()
        for request in REQUESTS:
            name = type(request).__name__
            async with a_raw_client(service.path, wire_format) as client:
                session = await joined(client, f"drv:{name}")
                before = await host.snapshot()
                if told(request):
                    await client.send(Ask(request, None, session))
                    continue
                if isinstance(request, OpenSession):
                    request = OpenSession("drv:other")  # noqa: PLW2901 - a name that it may have
                if name in {"Free", "FreeSet", "FreezeSet"}:
                    request = replace(request, wait=False)  # noqa: PLW2901 - nobody lets go
                answer = await client.ask(Ask(request, 2, session))
                error = answer.error if isinstance(answer, Refused) else ""
                if error == "PermissionDenied":
                    denied.add(name)
                    assert name in answer.message or name == "Subscribe", answer
                    assert quiet(before) == quiet(await host.snapshot())
                elif name in NOBODYS:
                    assert error in {"MalformedMessage", "UnknownRequest", "PermissionDenied"}
                    assert quiet(before) == quiet(await host.snapshot())
        # A tenant may not subscribe to everything; whether an example does is another matter.
        assert DENIED[role] == denied - NOBODYS - {"Subscribe"}


WRONG: Final[tuple[Any, ...]] = (
    *(-1, 10**30, 1.5, "x" * 5000, [1], [None] * 200),
    {str(each): each for each in range(200)},
)
"""What most fields may not be."""


@pytest.mark.parametrize("wire_format", list(WireFormat))
@pytest.mark.parametrize("role", POLICIES)
async def test_every_field_of_every_request_is_wrong(role: str, wire_format: WireFormat) -> None:
    """Each such request is answered, with what a client can read, and nobody else notices."""
    async with a_service(capacity=1 << 16) as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        service.server.policy = POLICIES[role]
        for request in REQUESTS:
            wrong = [
                {**msgspec.to_builtins(request), name: value}
                for name in request.__struct_fields__
                for value in WRONG
            ]
            async with a_raw_client(service.path, wire_format) as client:
                await client.hello(token="vm-1")
                opening = Ask(OpenSession("drv:1"), 1)
                numbered = list(enumerate(with_form(wrong, wire_format), 2))
                asks = [frame_of(each, wire_format, number) for number, each in numbered]
                if told(request):
                    asks += [frame_of(each, wire_format, None) for _, each in numbered]
                # In one go, so that what is behind the first is taken as that is answered.
                await client.send(opening, *asks, Ask(FindSid(1), 9999))
                waits = {number for number, each in numbered if each.get("wait") is True}
                missing = {1, 9999, *(number for number, _ in numbered)} - waits
                while missing:
                    frame = await client.receive()
                    assert frame is not None, request
                    if isinstance(frame, Answered):
                        missing.discard(frame.id)
                        facts = getattr(frame.answer, "facts", {})
                        assert "answer" != facts.get("direction"), (request, facts)
        assert 1 == (await host.statistics()).sessions


def with_form(requests: list[dict[str, Any]], wire_format: WireFormat) -> list[dict[str, Any]]:
    """Those of the requests that can be written: msgpack has no larger numbers."""
    if wire_format is WireFormat.JSON:
        return requests
    return [each for each in requests if 10**30 not in each.values()]


def frame_of(request: dict[str, Any], wire_format: WireFormat, number: int | None) -> bytes:
    """An `Ask` as another client would make it."""
    return encoded({"type": "Ask", "id": number, "request": request}, wire_format)


USE: Final = (
    *(Alloc(0), Find(1), Get(1), Put(1), AttachSpid(1, 101), FindBySpid(0, 101), DetachSpid(1)),
    *(AttachData(1, "x"), DetachData(1), ListSet(0), FindSet("vm-1"), ListSets(), FindSid(1)),
    *(Subscribe(token="vm-1"), Explain(1), Notify(1, EventKind.BIND), AllocMany(0, 2)),
    *(Free(1), FreeMany(0, (IoasidRange(2, 3),)), FreeSet(0, destroy=False)),
)
"""What who has a set does with it, where its number is 0."""
A_SET: Final = (AllocSet("vm-1", 4, group="tenant"), AdjustSet(0, 6))
LOOKS: Final = (ListHolders(), ListGroups(), TakeStatistics())
RIGHTS: Final[dict[str, tuple[tuple[Any, ...], tuple[Any, ...], Policy]]] = {
    "operator": (
        (AllocGroup("a", 8), AdjustGroup("a", 9), FreeGroup("a"), *A_SET),
        (
            *(*USE, *LOOKS, Subscribe(), ReserveCapacity(1), CancelCapacity(1), TakeSnapshot()),
            *(OpenSession("x"), Evict("x"), FreezeSet(0), ThawSet(0)),
        ),
        everybody(Role.OPERATOR),
    ),
    "driver": ((), (*USE, *LOOKS, Subscribe()), everybody(Role.DRIVER, holders=("drv:",))),
    "tenant": (
        (),
        USE,
        everybody(Role.TENANT, holders=("drv:",), tokens=("vm-1",)),
    ),
    "tenant with a group": (
        A_SET,
        (*USE, FreeSet(0)),
        everybody(Role.TENANT, holders=("drv:",), tokens=("vm-*",), group="tenant"),
    ),
}
"""What makes a role's set, if it may, what it does besides, and its policy."""


@pytest.mark.parametrize("wire_format", list(WireFormat))
@pytest.mark.parametrize("role", RIGHTS)
async def test_every_right_of_every_role(role: str, wire_format: WireFormat) -> None:
    """Whatever a role may it can: each of its rights is used once, and comes to what it is for."""
    making, using, policy = RIGHTS[role]
    async with a_service() as service, a_client(service) as host:
        await host.alloc_group("tenant", 16)
        if not making:
            await host.alloc_set("vm-1", 4)
        service.server.policy = policy
        async with a_raw_client(service.path, wire_format) as client:
            await client.hello(token="vm-1")
            answer = await client.ask(Ask(OpenSession("drv:1"), 1))
            session = answer.session
            for number, request in enumerate((*making, *using), 2):
                answer = await client.ask(Ask(request, number, session))
                assert not isinstance(answer, Refused), (request, answer)


QUOTA_THEFTS: Final[tuple[Any, ...]] = (
    *(AllocSet("vm-1", 2), AllocSet("vm-1", 2, group="other"), AllocSet("vm-1", group="none")),
    *(AllocSet("vm-2", 2, group="tenant"), AllocSet("vm-9", 2, group="tenant")),
    *(AllocSet(None, 2, TokenType.NULL, "tenant"), AllocSystemSet(2), AdjustGroup("tenant", 60)),
    *(AllocGroup("more", 2), FreeGroup("other"), FreeGroup("tenant")),
)


@pytest.mark.parametrize("wire_format", list(WireFormat))
async def test_a_tenant_that_takes_more_than_its_group(wire_format: WireFormat) -> None:
    """With a group it creates and sizes its own set in it: no other set, nowhere else, no more."""
    rule = RIGHTS["tenant with a group"][2]
    async with a_service() as service, a_client(service) as host:
        await host.alloc_group("tenant", 16)
        await host.alloc_group("other", 16)
        theirs = (await host.alloc_set("vm-2", 2, group="tenant")).sid
        outside = (await host.alloc_set("vm-3", 2)).sid
        service.server.policy = rule
        before = await host.snapshot()
        async with a_raw_client(service.path, wire_format) as client:
            await client.hello(token="vm-1")
            await client.ask(Ask(OpenSession("drv:1"), 1))
            for number, request in enumerate(QUOTA_THEFTS, 2):
                answer = await client.ask(Ask(request, number))
                assert "PermissionDenied" == answer.error, answer
            for number, sid in enumerate((theirs, outside, 99), 100):
                answer = await client.ask(Ask(AdjustSet(sid, 1), number))
                assert ("UnknownSet", {"sid": sid}) == (answer.error, answer.facts)
            answer = await client.ask(Ask(AllocSet("vm-1", 15, group="tenant"), 200))
            assert "GroupExhausted" == answer.error
            assert sets_of(before) == sets_of(await host.snapshot())
            made = await client.ask(Ask(AllocSet("vm-1", 14, group="tenant"), 201))
            answer = await client.ask(Ask(AdjustSet(made.sid, 15), 202))
            assert "GroupExhausted" == answer.error
        # What an operator made for it elsewhere it uses, and does not size.
        async with a_raw_client(service.path, wire_format) as client:
            await client.hello(token="vm-3")
            await client.ask(Ask(OpenSession("drv:3"), 1))
            answer = await client.ask(Ask(AdjustSet(outside, 3), 2))
            assert "PermissionDenied" == answer.error
            assert "not in its group 'tenant'" in answer.message
            assert 2 == (await host.find_set("vm-3")).quota


def sets_of(snapshot: Any) -> Any:
    """The sets and groups in a snapshot."""
    return snapshot.sets, snapshot.groups


@pytest.mark.parametrize("wire_format", list(WireFormat))
@pytest.mark.parametrize("role", POLICIES)
async def test_every_request_without_a_session(role: str, wire_format: WireFormat) -> None:
    """Who opened none sees what it sees with one, and not more; nothing else is done for it."""
    async with a_service(capacity=1 << 16) as service, a_client(service) as host:
        for sid, token in enumerate(("vm-1", "vm-2")):
            await host.alloc_set(token, 8)
            await host.attach_spid(await host.alloc(sid), 7)
        service.server.policy = POLICIES[role]
        # Of its own set and of another one.
        looks: list[Request] = [TakeStatistics(), ListHolders(), ListGroups(), ListSets()]
        for sid, token in enumerate(("vm-1", "vm-2", "vm-3")):
            ioasid = sid + 1
            looks += [FindSet(token), FindSet(sid=sid), ListSet(sid), FindBySpid(sid, 7)]
            looks += [Find(ioasid), Find(ioasid, sid), FindSid(ioasid), Explain(ioasid)]
            looks.append(Find(ioasid, 0))
        others = [
            each for each in REQUESTS if not is_look(each) and not isinstance(each, OpenSession)
        ]
        async with (
            a_raw_client(service.path, wire_format) as bare,
            a_raw_client(service.path, wire_format) as named,
        ):
            session = await joined(named)
            await bare.hello()
            before = await host.snapshot()
            for number, request in enumerate(looks, 2):
                expected = await named.ask(Ask(request, number, session))
                found = await bare.ask(Ask(request, number))
                assert without_ages(expected) == without_ages(found)
                assert "SessionEnded" == (await bare.ask(Ask(request, 1000 + number, 0))).error
            for number, request in enumerate((*others, FindBySpid(0, 7, get=True)), 2000):
                if not told(request):
                    error = (await bare.ask(Ask(request, number))).error
                    ended = "SessionEnded", "MalformedMessage", "UnknownRequest"
                    assert error in ended, request
            assert before.index == (await host.snapshot()).index
            assert quiet(before) == quiet(await host.snapshot())


def without_ages(answer: Any) -> Any:
    """An answer without what time changes."""
    match answer:
        case HolderPage():
            return [(each.holder, each.session) for each in answer.holders]
        case Refused():
            return answer.error, answer.message
        case _:
            return answer


def quiet(snapshot: Any) -> Any:
    """A snapshot without what time and connections change."""
    return replace(snapshot, index=0, now=0.0)


@pytest.mark.parametrize("wire_format", list(WireFormat))
async def test_posing_as_another(wire_format: WireFormat) -> None:
    """Who has not a name's prefix does not get it, live, suspended or free."""
    async with a_service() as service, a_client(service) as host, host.session("live"):
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        async with a_raw_client(service.path) as client:
            await client.hello()
            session = (await client.ask(Ask(OpenSession("vtd"), 1))).session
            await client.ask(Ask(Get(1), 2, session))
        while (await host.statistics()).suspended != 1:
            await checkpoint()
        for role in ("driver", "tenant"):
            service.server.policy = POLICIES[role]
            async with a_raw_client(service.path, wire_format) as client:
                await client.hello()
                names = ("vtd", "live", "free", "host", "drv", "Drv:1", " drv:1")
                for number, name in enumerate(names, 1):
                    for request in (OpenSession(name), OpenSession(name, 0)):
                        answer = await client.ask(Ask(request, 10 * number, None))
                        assert "PermissionDenied" == answer.error
        assert {"vtd": 1} == (await host.find(1)).references


async def test_a_tenant_that_asks_for_what_another_one_freed() -> None:
    """In quarantine or not, an ID of another set is as unknown to it as one that nobody has."""
    async with a_service() as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc_set("vm-2", 8)
        own, freed, theirs = [await host.alloc(sid) for sid in (0, 1, 1)]
        for each in (own, freed):
            await host.get(each)
            await host.free(each)
        service.server.policy = POLICIES["tenant"]
        async with a_raw_client(service.path) as client:
            session = await joined(client)
            numbers = iter(range(2, 1000))
            for request in REQUESTS:
                if not hasattr(request, "ioasid") or "generation" not in request.__struct_fields__:
                    continue
                for sid in (None, 0):
                    if "sid" in request.__struct_fields__:
                        request = replace(request, sid=sid)  # noqa: PLW2901 - its own set, or none
                    for ioasid in map(int, (freed, theirs, 60)):
                        asked = replace(request, ioasid=ioasid, generation=None)
                        answer = await client.ask(Ask(asked, next(numbers), session))
                        found = answer.error, answer.facts
                        assert ("UnknownIoasid", {"ioasid": ioasid, "others": 0}) == found, asked
            answer = await client.ask(Ask(Get(int(own)), next(numbers), session))
            assert "IoasidFreePending" == answer.error


@pytest.mark.parametrize("wire_format", list(WireFormat))
async def test_a_tenant_that_listens(wire_format: WireFormat) -> None:
    """It can't subscribe to the system, to another set, or to a token to come."""
    async with a_service() as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc_set("vm-2", 8)
        service.server.policy = POLICIES["tenant"]
        async with a_raw_client(service.path, wire_format) as client:
            session = await joined(client)
            scopes = (Subscribe(), Subscribe(sid=1), Subscribe(token="vm-2"), Subscribe(sid=9))
            for number, request in enumerate((*scopes, Subscribe(token="vm-3")), 2):
                answer = await client.ask(Ask(request, number, session))
                assert answer.error in {"PermissionDenied", "UnknownSet"}
            answer = await client.ask(Ask(Subscribe(token="vm-1"), 20, session))
            assert isinstance(answer, Subscribed)
            assert 1 == (await host.statistics()).subscriptions


async def test_a_client_that_guesses_another_ones_name() -> None:
    """A narrowed connection that says its manager's client name is another client."""
    async with a_service() as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        async with a_raw_client(service.path) as manager, a_raw_client(service.path) as vmm:
            await manager.hello("secret")
            session = (await manager.ask(Ask(OpenSession("manager"), 1))).session
            mine = await manager.ask(Ask(Alloc(0), 2, session))
            await vmm.send(Narrow("vm-1", ("kvm:",)))
            assert Narrowed() == await vmm.receive()
            assert not (await vmm.hello("secret")).resumed
            own = (await vmm.ask(Ask(OpenSession("kvm:1"), 1))).session
            theirs = await vmm.ask(Ask(Alloc(0), 2, own))
            # Not the manager's answer, and the manager is still there.
            assert [Allocated(1, 1), Allocated(2, 2)] == [mine, theirs]
            assert isinstance(await manager.ask(Ask(Alloc(0), 3, session)), Allocated)


# Another user

NOBODY: Final = 65534
AS_NOBODY: Final = """
import json, os, socket, sys
import msgspec
from ioasid.service import ClientConnection
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
sock.settimeout(30)
sock.connect(sys.argv[1])
connection = ClientConnection()
for line in sys.argv[2:]:
    try:
        sock.sendall(line.encode() + b"\\n")
    except BrokenPipeError:
        pass
    frames = []
    while not frames and (data := sock.recv(65536)):
        frames = connection.receive(data)
    print(msgspec.json.encode(frames[0]).decode())
    if "Refused" == type(frames[0]).__name__:
        break
"""
HELLO: Final = '{"type":"Hello","versions":[1],"client":"secret"}'


def opening(name: str, number: int = 1, **fields: Any) -> str:
    """A line that opens a session."""
    request = {"type": "OpenSession", "name": name, **fields}
    return json.dumps({"type": "Ask", "id": number, "request": request})


async def as_nobody(service: Service, *lines: str) -> list[Any]:
    """What another user is answered."""
    done = await anyio.run_process(
        [sys.executable, "-c", AS_NOBODY, str(service.path), *lines], stderr=sys.stderr
    )
    return [json.loads(each) for each in done.stdout.splitlines()]


def reachable(service: Service) -> None:
    """Let every user connect, so that the policy alone is in the way."""
    service.path.chmod(0o666)
    service.path.parent.chmod(0o755)


@pytest.mark.skipif(UID != 0, reason="only root can become another user")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_another_user() -> None:
    """It gets in by a rule alone, whatever it says, and takes up nobody's holder or answers."""
    async with a_service() as service, a_client(service) as host:
        reachable(service)
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        async with a_raw_client(service.path) as client:
            await client.hello("secret")
            session = (await client.ask(Ask(OpenSession("vtd"), 1))).session
            await client.ask(Ask(Get(1), 2, session))
        (refused,) = await as_nobody(service, HELLO)
        assert ("Refused", "PermissionDenied") == (refused["type"], refused["error"])

        as_operator = Rule(role=Role.OPERATOR, users=frozenset({NOBODY}))
        service.server.policy = Policy((as_operator, *Policy.only(UID).rules))
        welcome, mine, claimed, own = await as_nobody(
            service, HELLO, opening("vtd"), opening("vtd", 2, owner=UID), opening("new", 3)
        )
        assert ("operator", False) == (welcome["role"], welcome["resumed"])
        for each in (mine, claimed):
            assert "HolderOfAnother" == each["answer"]["error"]
        assert "SessionOpened" == own["answer"]["type"]

        as_tenant = replace_role(as_operator, Role.TENANT, holders=("kvm:",), tokens=("vm-9",))
        service.server.policy = Policy((as_tenant, *Policy.only(UID).rules))
        find = '{"type":"Ask","id":2,"request":{"type":"Find","ioasid":1}}'
        welcome, _, found = await as_nobody(service, HELLO, opening("kvm:9"), find)
        assert "tenant" == welcome["role"]
        assert "UnknownIoasid" == found["answer"]["error"]
        assert {"vtd": 1} == (await host.find(1)).references


def replace_role(rule: Rule, role: Role, **fields: Any) -> Rule:
    """A rule about the same users, with another role."""
    return Rule(role=role, users=rule.users, **fields)


# Wild clients


async def test_a_byte_at_a_time() -> None:
    """However slowly it comes it is understood, and nobody waits for it."""
    async with (
        a_service() as service,
        a_client(service) as host,
        a_raw_client(service.path, WireFormat.JSON) as slow,
    ):
        for byte in f"{HELLO}\n{opening('slow')}\n".encode():
            await slow.stream.send(bytes([byte]))
            await host.statistics()
        assert "operator" == (await slow.receive()).role
        assert (await slow.receive()).answer.session


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_half_closed_connection_is_a_crash() -> None:
    """Who says that it sends nothing more is gone: its holder is suspended."""
    async with a_service() as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        async with a_raw_client(service.path) as client:
            session = await joined(client, "vtd")
            await client.ask(Ask(Get(1), 2, session))
            await client.stream.send_eof()
            assert None is await client.receive()
            assert 1 == (await host.statistics()).suspended


async def test_a_reader_that_stopped_costs_itself_alone() -> None:
    """With a full socket, its answers and events pile up within bounds, and others are served."""
    limits = Limits(requests=64, backlog=4000)
    async with a_service(limits=limits) as service, a_client(service) as host:
        await host.alloc_set("vm-1", 60_000)
        async with a_raw_client(service.path) as stopped:
            session = await joined(stopped)
            await stopped.send(Ask(Subscribe(queue_size=500), 2, session))
            # It asks and asks, and never looks at an answer: a write to it blocks in the end.
            number = 2
            with anyio.move_on_after(20):
                while service.server.statistics().queued < 64:
                    batch = range(number + 1, number + 65)
                    number += 64
                    with anyio.move_on_after(0.2):
                        await stopped.send(*(Ask(ListHolders(), each, session) for each in batch))
            for _ in range(20):
                assert await host.alloc_many(0, 500)
                figures = service.server.statistics()
                assert figures.queued <= 64 + 500 + 2
            assert 2 == service.server.statistics().connections


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_ten_thousand_connects() -> None:
    """They come and go, some with a frame begun, and nothing is left of them."""
    async with a_service() as service, a_client(service) as host:
        count = 10_000

        def storm() -> None:
            for number in range(count):
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                    sock.connect(os.fspath(service.path))
                    if number % 3 == 0:
                        sock.sendall(b"\0\0\1")

        before = len(descriptors())
        await anyio.to_thread.run_sync(storm)
        # Some may have to be accepted yet, when all that were are gone.
        figures = service.server.statistics()
        while figures.connections > 1 or figures.accepted < count + 1:
            await host.statistics()
            figures = service.server.statistics()
        assert (1, count + 1) == (figures.connections, figures.accepted)
        assert before == len(descriptors())


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_crowd_at_the_door() -> None:
    """Beyond the bound each is told so; whoever is in is served, and there is room again."""
    limits = Limits(connections=20, connections_per_user=20)
    async with a_service(limits=limits) as service, a_client(service) as host:
        streams = [await anyio.connect_unix(service.path) for _ in range(50)]
        refused = 0
        for stream in streams[19:]:
            client = Raw(stream, WireFormat.MSGPACK)
            refused += (await client.receive()).error == "TooMany"
        assert 31 == refused
        assert 1 == (await host.statistics()).sessions
        for stream in streams:
            await stream.aclose()
        while service.server.statistics().connections != 1:
            await host.statistics()
        async with a_raw_client(service.path) as client:
            await joined(client)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_no_descriptor_is_inherited(tmp_path: Path) -> None:
    """A process that the service starts has none of its sockets and files."""
    async with (
        a_service(journal=tmp_path / "journal") as service,
        a_client(service),
        a_raw_client(service.path) as client,
    ):
        await client.hello()
        inheritable = {each for each in descriptors() if os.get_inheritable(each)}
        links = {link_of(each) for each in inheritable}
        assert not any(each.startswith("socket:") or "journal" in each for each in links)
        # Nor does a child have any, even one that closes nothing.
        script = "import os; print(*os.listdir('/proc/self/fd'))"
        child = partial(subprocess.check_output, [sys.executable, "-c", script], close_fds=False)
        found = await anyio.to_thread.run_sync(child)
        assert set(map(int, found.split())) <= inheritable | {0, 1, 2, 3}


def link_of(descriptor: int) -> str:
    """What a descriptor is of."""
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def descriptors() -> set[int]:
    """The descriptors that this process has open."""
    found = {int(each.name) for each in Path("/proc/self/fd").iterdir()}
    # One of them was for looking.
    return {each for each in found if Path(f"/proc/self/fd/{each}").exists()}


# Old and new


@pytest.mark.parametrize("wire_format", list(WireFormat))
async def test_a_newer_client(wire_format: WireFormat) -> None:
    """It speaks several versions, and says more than is known here, in frames and requests."""
    async with a_service() as service, a_raw_client(service.path, wire_format) as client:
        lines: tuple[dict[str, Any], ...] = (
            {"type": "Hello", "versions": [9, 1], "features": ["telepathy"], "mood": {"a": [1]}},
            {"type": "Ask", "id": 1, "request": {"type": "OpenSession", "name": "a", "new": 5}},
            {"type": "Ask", "id": 2, "request": {"type": "Divine", "sid": 1}, "urgent": True},
        )
        found = []
        for each in lines:
            await client.send(encoded(each, wire_format))
            found.append(await client.receive())
        assert 1 == found[0].version
        assert 1 == found[1].answer.session
        assert "UnknownRequest" == found[2].answer.error


def encoded(frame: Any, wire_format: WireFormat) -> bytes:
    """A frame as a client makes it that knows more than this one."""
    if wire_format is WireFormat.JSON:
        return msgspec.json.encode(frame) + b"\n"
    data = msgspec.msgpack.encode(frame)
    return len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize("wire_format", list(WireFormat))
async def test_a_newer_server(wire_format: WireFormat) -> None:
    """A client takes what it knows of a server that says more, features that it never heard of."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "s")
        listener = await anyio.create_unix_listener(path)

        async def serve(stream: anyio.abc.SocketStream) -> None:
            client = Raw(stream, wire_format)
            async with stream:
                await stream.receive()
                welcome = {
                    "type": "Welcome",
                    "version": 1,
                    "epoch": "e",
                    "resumed": False,
                    "requests": 8,
                    "waits": 8,
                    "role": "operator",
                    "moon": "full",
                    "features": ["telepathy"],
                }
                await client.send(encoded(welcome, wire_format))
                for number in (1, 2):
                    await stream.receive()
                    answer = {"type": "Done", "glad": True}
                    if number == 1:
                        answer = {"type": "SessionOpened", "session": 7, "resumed": False}
                    frame = {"type": "Answered", "id": number, "answer": answer, "cost": 0.1}
                    await client.send(encoded(frame, wire_format))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, serve)
            async with connect_allocator(path, holder="a", wire_format=wire_format) as session:
                assert 7 == session.number
            tasks.cancel_scope.cancel()
        await listener.aclose()


@pytest.mark.parametrize("wire_format", list(WireFormat))
async def test_numbers_that_are_none(wire_format: WireFormat) -> None:
    """Each is refused by the name of its field, in either form, and the connection goes on."""
    wrong: list[object] = [-1, True, 1.0, "1", [1]]
    if wire_format is WireFormat.JSON:
        # No msgpack has them.
        wrong += [2**64, -(2**63) - 1]
    number = 1
    checked: set[str] = set()
    # So many IDs that what else the examples say is in range.
    async with (
        a_service(capacity=2**32 - 1) as service,
        a_raw_client(service.path, wire_format) as client,
    ):
        await joined(client)
        for request in REQUESTS:
            name = type(request).__name__
            # Whose a holder is, the server says itself; an export is looked at before the rest.
            if told(request) or name in NOBODYS | {"OpenSession", "ImportSet"}:
                continue
            asks: dict[int, tuple[str, Any]] = {}
            for field, hint in get_type_hints(type(request)).items():
                if hint in (int, int | None):
                    fields = msgspec.to_builtins(request)
                    if field == "sid" and "token" in fields:
                        fields["token"] = None
                    for value in wrong:
                        number += 1
                        asked = fields | {field: value}
                        asks[number] = field, {"type": "Ask", "id": number, "request": asked}
                    checked.add(f"{name}.{field}")
            await client.send(*(encoded(ask, wire_format) for _, ask in asks.values()))
            while asks:
                answered = await client.receive()
                found = answered.answer
                field, _ = asks.pop(answered.id)
                assert ("InvalidArgument", field) == (found.error, found.facts["argument"])
    assert {"Alloc.sid", "Alloc.max", "Explain.generation", "ListSets.limit"} < checked
