"""Tenants: one token, and for whatever is not its own no sign that it exists."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from ioasid.core import (
    AdjustSet,
    Alloc,
    Allocated,
    AllocMany,
    AllocSet,
    AttachData,
    AttachSpid,
    DetachData,
    DetachSpid,
    Done,
    Event,
    EventKind,
    Explain,
    Explanation,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    FoundSid,
    Free,
    FreeMany,
    FreeSet,
    Get,
    IoasidRange,
    IoasidRecord,
    ListSet,
    ListSets,
    Notify,
    OpenSession,
    Priority,
    Put,
    Refused,
    Released,
    Request,
    SetPage,
    SetRecord,
    SetState,
    Subscribe,
    Subscribed,
    TokenType,
    Unsubscribe,
    WireFormat,
)
from ioasid.service import Ask, Hello, Narrow, Narrowed, PermissionDenied, Role, Welcome
from ioasid.service._tenancy import OF_A_SET, Tenancy
from tests.core.examples import REQUESTS
from tests.service.services import a_client, a_permit, a_raw_client, a_service

OTHERS = ("vm-2", "vtd", "kvm:vm-2", "overseer", "secret")
"""Names that a tenant of vm-1 must never see."""


def a_tenancy(group: str | None = None) -> Tenancy:
    """A tenant whose set is number 3, in its group if it has one."""
    permit = a_permit(Role.TENANT, holders=("kvm:",), group=group)
    tenancy = Tenancy(permit, "vm-1")
    tenancy.learn(SetRecord(3, "vm-1", TokenType.MM, 8, 0, SetState.ACTIVE, group=group))
    return tenancy


def test_most_requests_are_denied() -> None:
    """What concerns neither its holders nor its set a tenant may not ask at all."""
    denied = set()
    for request in REQUESTS:
        try:
            a_tenancy().admit(request)
        except PermissionDenied:
            denied.add(type(request).__name__)
        except Exception:  # noqa: BLE001 - refused for what it names, which is another's
            pass
    assert {
        *("InstallCapacity", "ReserveCapacity", "CancelCapacity", "ReserveRange", "CancelRange"),
        *("AllocGroup", "AdjustGroup", "FreeGroup", "ListGroups"),
        *("AllocSystemSet", "AllocSet", "AdjustSet", "ListHolders"),
        *("FreezeSet", "ThawSet", "ExportSet", "ImportSet", "ActivateSet"),
        *("SuspendAll", "Abandon", "Continue", "Tick", "Evict", "TakeStatistics", "TakeSnapshot"),
    } == denied - {"Subscribe"}


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: type(each).__name__)
def test_the_set_is_forced(request_: Any) -> None:
    """What is done in a set names the tenant's, whether or not it named one."""
    if type(request_) not in OF_A_SET:
        return
    tenancy = a_tenancy(group="tenant")
    for named in (None, 3):
        asked, _ = tenancy.admit(
            replace(request_, sid=named) if hasattr(request_, "sid") else request_
        )
        assert 3 == getattr(asked, "sid", None)


def test_a_set_of_its_own_in_a_group_of_its_own() -> None:
    """Where the policy gives it a group, a tenant creates and sizes its set in it, no other."""
    tenancy = a_tenancy(group="tenant")
    request = AllocSet("vm-1", 4, group="tenant")
    assert request == tenancy.admit(request)[0]
    assert not tenancy.is_uncertain(AdjustSet(3, 5))
    assert AdjustSet(3, 5) == tenancy.admit(AdjustSet(3, 5))[0]
    # Another set comes under its token, and nothing says yet where it is.
    tenancy.message(Event(9, EventKind.ALLOC, 1, 4))
    assert tenancy.is_uncertain(AdjustSet(4, 5))
    for group in ("x", None):
        tenancy.learn(SetRecord(4, "vm-1", TokenType.MM, 8, 0, SetState.ACTIVE, group=group))
        with pytest.raises(PermissionDenied, match="not in its group 'tenant'"):
            tenancy.admit(AdjustSet(4, 5))
    for other in (
        AllocSet("vm-2", 4, group="tenant"),
        AllocSet("vm-1", 4),
        AllocSet("vm-1", 4, group="x"),
    ):
        with pytest.raises(PermissionDenied):
            tenancy.admit(other)


def test_others_names_are_not_shown() -> None:
    """Whoever else has references, or publishes, is another."""
    tenancy = a_tenancy()
    record = IoasidRecord(1, 3, None, "ACTIVE", None, {"vtd": 1, "kvm:vm-1": 2, "x": 3}, 7)  # type: ignore[arg-type]
    _, show = tenancy.admit(Find(1))
    assert {"another": 4, "kvm:vm-1": 2} == show(record).references
    event = Event(1, EventKind.FREE, 1, 3, publisher="vtd")
    assert "another" == getattr(tenancy.message(event), "publisher", None)
    assert event != tenancy.message(event)
    own = replace(event, publisher="kvm:vm-1")
    assert own == tenancy.message(own)


@pytest.mark.anyio
@pytest.mark.parametrize("wire_format", list(WireFormat))
async def test_why_without_the_names_of_others(wire_format: WireFormat) -> None:
    """A tenant asks why an ID of its set is not back: others are another, wherever they are."""
    async with (
        a_service() as service,
        a_client(service, holder="overseer") as host,
        host.session("vtd") as vtd,
        host.session("aaa") as other,
    ):
        await host.alloc_set("vm-1", 8)
        number = await host.alloc(0)
        async with (
            vtd.subscribe(priority=Priority.IOMMU),
            other.subscribe(token="vm-1", priority=Priority.DEVICE, hold=True),
            a_raw_client(service.path, wire_format) as tenant,
        ):
            await vtd.get(number)
            await tenant.send(Narrow("vm-1", ("kvm:vm-1",)), Hello((1,)))
            assert Narrowed() == await tenant.receive()
            assert isinstance(await tenant.receive(), Welcome)
            await tenant.ask(Ask(OpenSession("kvm:vm-1"), 1))
            await tenant.ask(Ask(Get(number), 2))
            await host.attach_spid(number, 101)
            await host.notify(number, EventKind.BIND)
            await host.free(number)
            found = await tenant.ask(Ask(Explain(number), 3))
            assert isinstance(found, Explanation)
            assert ["another", "another", "kvm:vm-1"] == [each.holder for each in found.references]
            waits = [each.holder for event in found.events for each in event.waits_for]
            tiers = [tier for event in found.events for tier in event.then]
            coming = [name for tier in tiers for name, _ in tier.subscribers]
            assert {"another"} == {*waits, *coming}
            assert "another" in {each.publisher for each in found.events}
            for name in ("vtd", "aaa", "overseer"):
                assert name not in msgspec.json.encode(found).decode() + found.text
            truth = await host.explain(number)
            assert {"aaa", "vtd", "kvm:vm-1"} == set(truth.blockers)
            assert ("another", "kvm:vm-1") == found.blockers


# Attacks over a connection

pytestmark: list[Any] = []


def attacks(sid: int, ioasid: int, token: str) -> list[Request]:
    """Every request that names a set, an ID or a token, about these."""
    return [
        *(Alloc(sid), AllocMany(sid, 2), FreeSet(sid), FreeSet(sid, wait=True)),
        *(FreeMany(sid, (IoasidRange(ioasid, ioasid),)), FindBySpid(sid, 102, get=True)),
        *(ListSet(sid), FindSet(token), FindSet(sid=sid), FindSid(ioasid), FindSid(ioasid, 1)),
        *(
            Find(ioasid),
            Find(ioasid, generation=1),
            Find(ioasid, sid),
            Explain(ioasid),
            Explain(ioasid, 1),
            Explain(ioasid, 2),
            Free(ioasid),
            Free(ioasid, sid),
        ),
        *(Free(ioasid, wait=True), Free(ioasid, generation=77), Get(ioasid), Get(ioasid, sid)),
        *(Put(ioasid), AttachData(ioasid, "x"), DetachData(ioasid), AttachSpid(ioasid, 9)),
        *(DetachSpid(ioasid), DetachSpid(ioasid, sid), Notify(ioasid, EventKind.FREE)),
        *(Notify(ioasid, EventKind.FREE, sid), Subscribe(sid=sid), Subscribe(token=token)),
        *(FreeMany(0, (IoasidRange(ioasid, ioasid),)), Find(ioasid, 0), Free(ioasid, 0)),
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("wire_format", list(WireFormat))
async def test_attacks_on_others(wire_format: WireFormat) -> None:
    """Whatever a tenant sends about another's set is answered as if there were none."""
    async with (
        a_service(capacity=1024) as service,
        a_client(service, holder="overseer") as host,
        host.session("vtd") as vtd,
        host.session("kvm:vm-2") as kvm,
    ):
        await host.alloc_set("vm-1", 8)
        await host.alloc_set("vm-2", 8)
        mine, theirs = await host.alloc(0), await host.alloc(1, data="secret")
        await host.attach_spid(mine, 101)
        await host.attach_spid(theirs, 102)
        await vtd.get(theirs)
        await vtd.get(mine)
        async with (
            kvm.subscribe(token="vm-2", hold=True),
            a_raw_client(service.path, wire_format) as tenant,
        ):
            await tenant.send(Narrow("vm-1", ("kvm:vm-1",)))
            assert Narrowed() == await tenant.receive()
            await tenant.send(Hello((1,)))
            welcome = await tenant.receive()
            assert isinstance(welcome, Welcome)
            assert "tenant" == welcome.role
            opened = await tenant.ask(Ask(OpenSession("kvm:vm-1"), 1))
            before = await host.snapshot()
            number = 1
            answers: list[list[Any]] = []
            for requests in (attacks(1, theirs, "vm-2"), attacks(9, 99, "vm-9")):
                answers.append([])
                for request in requests:
                    number += 1
                    answer = await tenant.ask(Ask(request, number, opened.session))
                    answers[-1].append(answer)
            for answer in (each for group in answers for each in group):
                text = msgspec.json.encode(answer).decode()
                # What it said itself it may hear again.
                heard = [name for name in OTHERS if name in text.replace("vm-2", "")]
                assert [] == heard, text
            # What is another's is refused in the same words as what there is not.
            for theirs_, nothing in zip(answers[0], answers[1], strict=True):
                assert isinstance(theirs_, Refused), theirs_
                assert isinstance(nothing, Refused), nothing
                words = theirs_.message.replace("vm-2", "vm-9")
                numbers = str.maketrans("", "", "0123456789")
                assert nothing.error == theirs_.error
                assert nothing.message.translate(numbers) == words.translate(numbers)
            after = await host.snapshot()
            assert replace(before, index=0, now=0.0) == replace(after, index=0, now=0.0)
            # Others' holders can't be had, whether or not there are such.
            for name in ("kvm:vm-2", "vtd", "kvm:", "overseer", "nobody"):
                number += 1
                answer = await tenant.ask(Ask(OpenSession(name), number))
                assert isinstance(answer, Refused)
                assert "PermissionDenied" == answer.error


@pytest.mark.anyio
@pytest.mark.parametrize("wire_format", list(WireFormat))
async def test_what_a_tenant_can_do(wire_format: WireFormat) -> None:
    """Within its set everything works, also when the set comes after the tenant and comes again."""
    async with a_service() as service, a_client(service) as host:
        async with a_raw_client(service.path, wire_format) as tenant:
            await tenant.send(
                Narrow("vm-1", ("kvm:vm-1",)), Hello((1,)), Ask(OpenSession("kvm:vm-1"), 1)
            )
            assert Narrowed() == await tenant.receive()
            assert isinstance(await tenant.receive(), Welcome)
            await tenant.receive()
            assert SetPage((), None) == await tenant.ask(Ask(ListSets(), 2))
            number = 2
            for sid in (0, 2):
                await host.alloc_set("vm-1", 8)
                other = await host.alloc_set("vm-2", 8)
                expected: list[tuple[Request, type]] = [
                    (Alloc(sid), Allocated),
                    (Find(1), IoasidRecord),
                    (FindSid(1), FoundSid),
                    (Explain(1), Explanation),
                    (AttachSpid(1, 101), Done),
                    (FindBySpid(sid, 101), Allocated),
                    (ListSets(), SetPage),
                    (FindSet("vm-1"), SetRecord),
                    (Subscribe(sid=sid), Subscribed),
                    (DetachSpid(1), Done),
                    (Notify(1, EventKind.BIND), Done),
                    (Free(1), Released),
                    (FreeSet(sid), Released),
                ]
                for request, kind in expected:
                    number += 1
                    answer = await tenant.ask(Ask(request, number))
                    assert isinstance(answer, kind), (request, answer)
                    assert b"vm-2" not in msgspec.json.encode(answer)
                    if isinstance(answer, Subscribed):
                        number += 1
                        assert Done() == await tenant.ask(
                            Ask(Unsubscribe(answer.subscription), number)
                        )
                await host.free_set(other.sid)
