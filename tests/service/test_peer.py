"""One connection at the server: greeting, bounds, requests sent again, and slow readers."""

import os
from pathlib import Path
from threading import Event as Flag
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from msgspec.structs import replace

from ioasid.actors import Session
from ioasid.core import (
    Acknowledge,
    Alloc,
    Allocated,
    AllocSet,
    CloseSession,
    Deliver,
    Detach,
    Done,
    End,
    Event,
    EventKind,
    Evict,
    Expel,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    FoundSid,
    Free,
    Get,
    ListSet,
    OpenSession,
    Refused,
    Released,
    Request,
    Resync,
    SessionOpened,
    Subscribe,
    Subscribed,
    SuspendSession,
    TakeStatistics,
    Unsubscribe,
    WireFormat,
    Withdraw,
)
from ioasid.service import (
    Answered,
    Ask,
    Credentials,
    GiveUp,
    Goodbye,
    Hello,
    Limits,
    Narrow,
    Narrowed,
    Policy,
    Role,
    Welcome,
    _server,
)
from tests.journal.disk import IOERR_FSYNC, Disk, failing_disk
from tests.journal.disk import Done as DoneToDisk
from tests.service.services import (
    UID,
    Raw,
    a_client,
    a_raw_client,
    a_service,
    everybody,
)

pytestmark = pytest.mark.anyio


async def opened(client: Raw, name: str = "vm", number: int = 1) -> int:
    """Say hello and open a session; its number."""
    await client.hello()
    answer = await client.ask(Ask(OpenSession(name), number))
    assert isinstance(answer, SessionOpened), answer
    return answer.session


def hold_syncs(disk: Disk) -> tuple[Flag, Flag]:
    """Let no sync end from now on; returns what tells that one began, and what lets all go on."""
    held, release = Flag(), Flag()

    def hold(done: DoneToDisk) -> int:
        if done.action == "sync":
            held.set()
            assert release.wait(60)
        return 0

    disk.fails = hold
    return held, release


def error_of(answer: Any) -> str:
    """The name of the error that something was refused with."""
    assert isinstance(answer, Refused), answer
    return answer.error


# Greeting


BROKEN: dict[str, tuple[Any, ...]] = {
    "no hello": (Ask(OpenSession("vm"), 1),),
    "another version": (Hello((2, 3)),),
    "two hellos": (Hello((1,)), Hello((1,))),
    "a narrowing after the hello": (Hello((1,)), Narrow("vm-1")),
    "narrowing twice": (Narrow("vm-1"), Narrow("vm-1")),
    "a client without a name": (Hello((1,), ""),),
    "a client with a long name": (Hello((1,), "x" * 65),),
    "a telling that is to be answered": (Hello((1,)), Ask(OpenSession("vm"), 1), Ask(Alloc(0))),
    "garbage": (b"GET / HTTP/1.1\r\n\r\n",),
    "4 GiB": (b"\xff\xff\xff\xff",),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("wire_format", list(WireFormat))
async def test_what_breaks_the_protocol_is_told(name: str, wire_format: WireFormat) -> None:
    """The connection is refused with the reason and ends; others go on."""
    async with a_service() as service, a_client(service) as host:
        async with a_raw_client(service.path, wire_format) as client:
            await client.send(*BROKEN[name])
            while isinstance(frame := await client.receive(), Welcome | Narrowed | Answered):
                pass
            assert error_of(frame) in {"ProtocolViolated", "TooLarge"}
            assert None is await client.receive()
        assert 1 == (await host.statistics()).sessions


async def test_a_shell_needs_no_numbers() -> None:
    """Lines may be sent before there is an answer; the first session is meant unless told."""
    async with a_service() as service, a_raw_client(service.path, WireFormat.JSON) as client:
        await client.send(
            b'{"type":"Hello","versions":[1]}\n'
            b'{"type":"Ask","id":1,"request":{"type":"OpenSession","name":"shell"}}\n'
            b'{"type":"Ask","id":2,"request":{"type":"AllocSet","token":"vm-1","quota":4}}\n'
            b'{"type":"Ask","id":3,"request":{"type":"Alloc","sid":0}}\n'
        )
        assert isinstance(await client.receive(), Welcome)
        found = [await client.receive() for _ in range(3)]
        assert [1, 2, 3] == [each.id for each in found]
        assert Allocated(1, 1) == found[2].answer


async def test_who_is_no_session() -> None:
    """A session that is another connection's, or nobody's, is over for who names it."""
    async with a_service() as service, a_client(service) as host:
        async with a_raw_client(service.path) as client:
            await opened(client)
            for number, session in enumerate((host.number, 99), 2):
                answer = await client.ask(Ask(Alloc(0), number, session))
                assert "SessionEnded" == error_of(answer)


# Sent again


async def test_a_request_that_is_sent_again_is_decided_once() -> None:
    """Over the same connection, and over another one of the same client."""
    async with a_service() as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        async with a_raw_client(service.path) as client:
            await client.hello("me")
            session = (await client.ask(Ask(OpenSession("vm"), 1))).session
            first = await client.ask(Ask(Alloc(0), 2, session))
            await client.ask(Ask(Get(1), 3, session))
            assert first == await client.ask(Ask(Alloc(0), 2, session))
        async with a_raw_client(service.path) as client:
            assert (await client.hello("me")).resumed
            again = await client.ask(Ask(OpenSession("vm"), 4))
            assert (True, ((1, 1),)) == (again.resumed, again.references)
            assert first == await client.ask(Ask(Alloc(0), 2, again.session))
            assert Done() == await client.ask(Ask(Get(1), 3, again.session))
        assert {"vm": 1} == (await host.find(1)).references
        async with a_raw_client(service.path) as client:
            assert not (await client.hello("another")).resumed


@pytest.mark.parametrize(
    "taking", [Get(1), FindBySpid(0, 101, get=True)], ids=["Get", "FindBySpid"]
)
async def test_a_reference_of_who_was_evicted_is_taken_anew(taking: Request) -> None:
    """Sent again, it is decided by what is now: answered as done, the holder has it."""
    async with a_service() as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        for spid in (101, 102):
            await host.attach_spid(await host.alloc(0), spid)
        async with a_raw_client(service.path) as client:
            await client.hello("me")
            session = (await client.ask(Ask(OpenSession("vm"), 1))).session
            first = await client.ask(Ask(taking, 2, session))
            assert Done() == await client.ask(Ask(Get(2), 3, session))
        await host.evict("vm")
        await host.free(2)
        async with a_raw_client(service.path) as client:
            assert (await client.hello("me")).resumed
            again = await client.ask(Ask(OpenSession("vm"), 4))
            assert (False, ()) == (again.resumed, again.references)
            assert first == await client.ask(Ask(taking, 2, again.session))
            assert {"vm": 1} == (await host.find(1)).references
            # And as before, it is decided once.
            assert first == await client.ask(Ask(taking, 2, again.session))
            assert {"vm": 1} == (await host.find(1)).references
            refused = await client.ask(Ask(Get(2), 3, again.session))
            assert "UnknownIoasid" == error_of(refused)


async def test_a_client_that_comes_back_early_takes_the_place_of_its_connection() -> None:
    """The old connection ends, its holder is suspended, and comes back on the new one."""
    async with a_service() as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        async with a_raw_client(service.path) as one, a_raw_client(service.path) as two:
            await one.hello("me")
            session = (await one.ask(Ask(OpenSession("vm"), 1))).session
            await one.ask(Ask(Get(1), 2, session))
            assert (await two.hello("me")).resumed
            assert None is await one.receive()
            assert (await two.ask(Ask(OpenSession("vm"), 3))).resumed


async def test_a_client_that_left_in_order_is_forgotten() -> None:
    """It closed what it had, so it has no reason to come back."""
    async with a_service() as service:
        async with a_raw_client(service.path) as client:
            await client.hello("me")
            session = (await client.ask(Ask(OpenSession("vm"), 1))).session
            await client.ask(Ask(CloseSession(), 2, session))
        for _ in range(20):
            await checkpoint()
        async with a_raw_client(service.path) as client:
            assert not (await client.hello("me")).resumed


# Giving up


async def test_giving_up() -> None:
    """What only an answer names is undone, in order, whether the answer is there or not."""
    async with (
        a_service() as service,
        a_client(service) as host,
        a_raw_client(service.path) as client,
    ):
        await host.alloc_set("vm-1", 8)
        session = await opened(client)
        assert isinstance(await client.ask(Ask(Alloc(0), 2, session)), Allocated)
        figures = await client.ask(GiveUp(3, 2, session))
        assert Done() == figures
        await client.send(Ask(Alloc(0), 4, session), GiveUp(5, 4, session), GiveUp(6, 99, session))
        answers = {each.id: each.answer for each in [await client.receive() for _ in range(2)]}
        assert {5: Done(), 6: Done()} == answers
        joined = await client.ask(Ask(OpenSession("second"), 7, session))
        assert Done() == await client.ask(GiveUp(8, 7, session))
        figures = await client.ask(Ask(TakeStatistics(), 9, session))
        assert (0, 2) == (figures.active, figures.sessions)
        answer = await client.ask(Ask(Alloc(0), 10, joined.session))
        assert "SessionEnded" == error_of(answer)
        await client.ask(Ask(Alloc(0), 11, session))
        await client.ask(Ask(Get(1), 12, session))
        await client.send(Ask(Free(1, wait=True), 13, session))
        assert "WouldDeadlock" == error_of((await client.receive()).answer)


async def test_a_subscription_that_is_given_up_while_it_is_kept(tmp_path: Path) -> None:
    """Who does not know its number is told nothing of it."""
    with failing_disk() as disk:
        async with (
            a_service(journal=tmp_path / "j") as service,
            a_raw_client(service.path) as client,
        ):
            session = await opened(client)
            number = (await client.ask(Ask(Subscribe(hold=True), 2, session))).subscription
            await client.ask(Ask(Detach(number), 3, session))
            held, release = hold_syncs(disk)
            await client.send(Ask(Subscribe(hold=True), 4, session))
            while not held.is_set():
                await checkpoint()
            assert Done() == await client.ask(GiveUp(5, 4, session))
            release.set()
            await client.send(Ask(Alloc(0), 6, session))
            answer = await client.receive()
            assert (6, "UnknownSet") == (answer.id, error_of(answer.answer))


# Bounds


async def test_bounds_on_what_a_connection_has() -> None:
    """Sessions, subscriptions, waits and queues: one too many is refused, and nothing else."""
    limits = Limits(sessions=3, subscriptions=2, waits=2, queue_size=100)
    async with a_service(limits=limits) as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        ioasid = await host.alloc(0)
        await host.get(ioasid)
        async with a_raw_client(service.path) as client:
            session = await opened(client)
            asks: list[tuple[Any, str]] = [
                (OpenSession("a"), ""),
                (OpenSession("b"), ""),
                (OpenSession("c"), "TooMany"),
                (Subscribe(queue_size=101), "InvalidArgument"),
                (Subscribe(queue_size=5), ""),
                (Subscribe(token="a", queue_size=100), ""),
                (Subscribe(token="b", queue_size=5), "TooMany"),
            ]
            for number, (request, error) in enumerate(asks, 2):
                answer = await client.ask(Ask(request, number, session))
                assert error == (error_of(answer) if isinstance(answer, Refused) else "")
            third = await client.ask(Ask(OpenSession("a"), 20, session))
            assert "TooMany" == error_of(third)
        async with a_raw_client(service.path) as client:
            session = await opened(client, "other")
            for number in (2, 3):
                await client.send(Ask(Free(ioasid, wait=True), number, session))
            assert "TooMany" == error_of(await client.ask(Ask(Free(ioasid, wait=True), 4, session)))
            assert True is await host.put(ioasid)
            assert [Released(True)] * 2 == [(await client.receive()).answer for _ in range(2)]
            # There is room again.
            assert "UnknownIoasid" == error_of(
                await client.ask(Ask(Free(1, wait=True), 5, session))
            )


async def test_more_requests_than_may_be_under_way() -> None:
    """The rest waits in the socket, and every one is answered, in order."""
    async with a_service(limits=Limits(requests=4)) as service:
        async with a_raw_client(service.path) as client:
            assert 4 == (await client.hello()).requests
            session = (await client.ask(Ask(OpenSession("vm"), 1))).session
            await client.send(
                Ask(AllocSet("vm-1", 1000), 2, session),
                *(Ask(Alloc(0), number, session) for number in range(3, 503)),
            )
            answers = [await client.receive() for _ in range(501)]
            assert list(range(2, 503)) == [each.id for each in answers]
            assert Allocated(500, 500) == answers[-1].answer


async def test_what_waits_does_not_keep_what_it_waits_for_from_coming() -> None:
    """As many waits as requests may be under way, and the acknowledgement behind them counts."""
    limits = Limits(requests=2, waits=4)
    async with a_service(limits=limits) as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        async with a_raw_client(service.path) as client:
            session = await opened(client)
            holder = (await client.ask(Ask(OpenSession("kvm"), 2))).session
            number = (await client.ask(Ask(Subscribe(), 3, holder))).subscription
            await client.ask(Ask(Alloc(0), 4, session))
            frees = [Ask(Free(1, wait=True), each, session) for each in range(5, 9)]
            await client.send(*frees)
            found = [await client.receive() for _ in range(2)]
            pairs = tuple((number, each.message.seq) for each in found)
            await client.send(Ask(Acknowledge(pairs), None, holder))
            answers = [await client.receive() for _ in range(5)]
            assert [Answered(each, Released(True)) for each in range(5, 9)] == [
                each for each in answers if isinstance(each, Answered)
            ]


@pytest.mark.parametrize("wire_format", list(WireFormat))
async def test_a_request_that_is_repeated_while_it_is_under_way(wire_format: WireFormat) -> None:
    """It is decided once, answered as often as it came, and takes the room of each."""
    async with a_service(limits=Limits(requests=2)) as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        async with a_raw_client(service.path, wire_format) as client:
            session = await opened(client)
            for number in range(2, 8):
                # All come before the first is decided, or behind it.
                await client.send(*[Ask(Alloc(0), number, session)] * 3)
                expected = [Answered(number, Allocated(number - 1, number - 1))] * 3
                assert expected == [await client.receive() for _ in range(3)]
            for number in range(8, 14):
                await client.send(*[Ask(FindSid(1), number, session)] * 3)
                expected = [Answered(number, FoundSid(0))] * 3
                assert expected == [await client.receive() for _ in range(3)]
            assert 6 == (await host.statistics()).active


@pytest.mark.parametrize("wire_format", list(WireFormat))
async def test_a_request_that_is_repeated_while_it_is_kept(
    wire_format: WireFormat, tmp_path: Path
) -> None:
    """What is being committed is answered as often as it was asked, when it is kept."""
    with failing_disk() as disk:
        async with (
            a_service(journal=tmp_path / "journal") as service,
            a_client(service) as host,
            a_raw_client(service.path, wire_format) as client,
        ):
            session = await opened(client)
            await host.alloc_set("vm-1", 8)
            held, release = hold_syncs(disk)
            ask = Ask(Alloc(0), 2, session)
            await client.send(ask)
            while not held.is_set():
                await checkpoint()
            # What is answered at once, and behind the repeats.
            assert Done() == await client.ask(ask, ask, GiveUp(3, 99, session))
            release.set()
            expected = [Answered(2, Allocated(1, 1))] * 4
            assert expected == [
                *[await client.receive() for _ in range(3)],
                Answered(2, await client.ask(ask)),
            ]
            assert 1 == (await host.statistics()).active


async def test_a_wait_that_is_repeated() -> None:
    """Each counts as one, also of those that the connection before sent, or that are given up."""
    limits = Limits(requests=4, waits=2)
    async with a_service(limits=limits) as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        await host.get(1)
        wait = Ask(Free(1, wait=True), 3)
        async with a_raw_client(service.path) as client:
            await client.hello("me")
            session = (await client.ask(Ask(OpenSession("vm"), 1))).session
            assert "TooMany" == error_of(await client.ask(*[replace(wait, session=session)] * 3))
        async with a_raw_client(service.path) as client:
            await client.hello("me")
            session = (await client.ask(Ask(OpenSession("vm"), 4))).session
            wait = replace(wait, session=session)
            assert "TooMany" == error_of(await client.ask(*[wait] * 3))
            for number in (5, 6):
                assert Done() == await client.ask(GiveUp(number, 3, session))
            assert "TooMany" == error_of(await client.ask(*[wait] * 3))
            await host.put(1)
            expected = [Answered(3, Released(True))] * 2
            assert expected == [await client.receive() for _ in range(2)]


@pytest.mark.parametrize("wire_format", list(WireFormat))
async def test_repeats_that_are_given_up(wire_format: WireFormat) -> None:
    """None is answered any more, and there is room again."""
    async with a_service(limits=Limits(requests=4)) as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        async with a_raw_client(service.path, wire_format) as client:
            session = await opened(client)
            for number in range(2, 12, 2):
                ask = Ask(Alloc(0), number, session)
                assert Done() == await client.ask(ask, ask, GiveUp(number + 1, number, session))
            assert 0 == (await host.statistics()).active


async def test_what_nobody_is_answered_is_taken_as_it_is_decided() -> None:
    """However much a client tells, it is no further ahead of the allocator than its bound."""
    async with a_service(limits=Limits(requests=8)) as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        async with a_raw_client(service.path) as client:
            session = await opened(client)
            most = 0
            flood = Ask(Acknowledge(((99, 1),)), None, session)
            for _ in range(50):
                await client.send(*[flood] * 100)
                most = max(most, (await host.statistics()).mailbox)
            assert most <= 16
            assert isinstance(await client.ask(Ask(Alloc(0), 2, session)), Allocated)


async def test_a_reader_that_is_slow_is_folded() -> None:
    """Its events become a Resync at its bound, others are not delayed, and nothing piles up."""
    async with (
        a_service() as service,
        a_client(service) as host,
        a_raw_client(service.path) as slow,
    ):
        await host.alloc_set("vm-1", 60_000)
        session = await opened(slow)
        answer = await slow.ask(Ask(Subscribe(queue_size=50), 2, session))
        for _ in range(40):
            await host.alloc_many(0, 1000)
            assert service.server.statistics().queued <= 60
        number = answer.subscription
        kinds: list[type] = []
        seen = 0
        while seen < 40_000:
            frame = await slow.receive()
            kinds.append(type(frame))
            if isinstance(frame, Deliver):
                message = frame.message
                seen = sum(1 for _ in message) if isinstance(message, Resync) else seen + 1
                await slow.send(Ask(Acknowledge(((number, message.seq),)), None, session))
        assert Withdraw in kinds
        assert len(kinds) < 200


async def test_a_reader_that_never_reads_is_cut_off() -> None:
    """Who acknowledges what it has not read has a bound, too; its holder is suspended."""
    limits = Limits(backlog=2000)
    async with a_service(limits=limits) as service, a_client(service) as host:
        await host.alloc_set("vm-1", 1 << 16)
        async with a_raw_client(service.path) as slow:
            session = await opened(slow)
            subscribed = await slow.ask(Ask(Subscribe(queue_size=1000, hold=True), 2, session))
            assert isinstance(subscribed, Subscribed)
            seq = 0
            for _ in range(200):
                try:
                    await host.alloc_many(0, 500)
                    pairs = tuple((subscribed.subscription, each) for each in range(seq, seq + 500))
                    seq += 500
                    with anyio.fail_after(5):
                        await slow.send(Ask(Acknowledge(pairs), None, session))
                except (anyio.BrokenResourceError, TimeoutError):
                    break
            else:
                raise AssertionError("it was not cut off")
        while (await host.statistics()).suspended != 1:
            await checkpoint()


# Roles


async def test_a_driver() -> None:
    """It uses any set under its own names, and neither creates, sizes nor evicts."""
    policy = everybody(Role.DRIVER, holders=("vdcm:", "vtd"))
    async with a_service() as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        service.server.policy = policy
        async with a_raw_client(service.path) as client:
            assert "driver" == (await client.hello()).role
            for number, name in enumerate(("host", "vdc", "kvm:vm-1"), 1):
                assert "PermissionDenied" == error_of(
                    await client.ask(Ask(OpenSession(name), number))
                )
            session = (await client.ask(Ask(OpenSession("vdcm:dsa0"), 10))).session
            assert Allocated(1, 1) == await client.ask(Ask(Alloc(0), 11, session))
            assert Done() == await client.ask(Ask(Get(1), 12, session))
            denied: tuple[Request, ...] = (Evict("host"), AllocSet("vm-2", 1))
            for number, request in enumerate(denied, 13):
                assert "PermissionDenied" == error_of(
                    await client.ask(Ask(request, number, session))
                )


@pytest.mark.parametrize("takes", [("Telepathy", "Expel"), ()])
async def test_who_is_evicted_is_told(takes: tuple[str, ...]) -> None:
    """At once, behind the ends of its subscriptions, if it takes that; else by its next answer."""
    async with a_service() as service, a_client(service) as host, a_raw_client(service.path) as raw:
        await raw.hello(takes=takes)
        first = (await raw.ask(Ask(OpenSession("vm"), 1))).session
        second = (await raw.ask(Ask(OpenSession("kvm"), 2))).session
        assert Subscribed(1, False) == await raw.ask(Ask(Subscribe(), 3, first))
        await host.evict("vm")
        assert End(1, False) == await raw.receive()
        # What comes without a number is still for its first session.
        await raw.send(Ask(Alloc(0), 4))
        frame = await raw.receive()
        if takes:
            assert Expel(first) == frame
            frame = await raw.receive()
        assert "SessionEnded" == error_of(frame.answer)
        await raw.send(Ask(CloseSession(), 5, second))
        assert Answered(5, Done()) == await raw.receive()
        anew = (await raw.ask(Ask(OpenSession("vm"), 6))).session
        assert anew not in (first, second)


async def test_large_answers_are_made_as_they_are_read() -> None:
    """Few wait for a reader that is slow, however many it asked for; all of them come."""
    async with a_service() as service, a_client(service) as host, a_raw_client(service.path) as raw:
        await host.alloc_set("vm-1", 1000)
        async with anyio.create_task_group() as tasks:
            for each in range(1, 1001):
                tasks.start_soon(bound, host, each)
        session = await opened(raw)
        numbers = set(range(2, 42))
        await raw.send(*(Ask(ListSet(0), each, session) for each in numbers), Ask(Find(1), 42))
        for _ in range(20):
            await host.statistics()
            assert service.server.statistics().queued <= 5
        while numbers | {42}:
            frame = await raw.receive()
            if frame.id == 42:
                break
            numbers.remove(frame.id)
            assert 1000 == len(list(frame.answer))
        assert not numbers


async def bound(host: Session, spid: int) -> None:
    """Give the first set one more ID that is bound."""
    await host.attach_spid(await host.alloc(0), spid)


async def test_a_tenant_whose_set_was_made_anew() -> None:
    """Who named no set is wrong about it once at most, however often it was made anew."""
    async with a_service() as service, a_client(service) as host:
        service.server.policy = everybody(Role.TENANT, holders=("vm",), tokens=("vm-1",))
        async with a_raw_client(service.path) as raw:
            session = await opened(raw)
            for turn in range(3):
                sid = (await host.alloc_set("vm-1", 8)).sid
                ioasid = int(await host.alloc(sid))
                frames = [Ask(Find(ioasid), 10 * turn + each, session) for each in (2, 3)]
                first, second = [await raw.ask(each) for each in frames]
                assert sid == getattr(first, "sid", sid)
                assert (turn > 0) is isinstance(first, Refused)
                assert (sid, ioasid) == (second.sid, second.ioasid)
                await host.free_set(sid, wait=True)


@pytest.mark.parametrize("last", [CloseSession(), SuspendSession()])
async def test_giving_up_to_leave(last: Request) -> None:
    """The session is over all the same: its name is free, also when the connection has ended."""
    async with a_service() as service, a_client(service) as host:
        for _ in range(2):
            async with a_raw_client(service.path) as raw:
                session = await opened(raw)
                await raw.send(Ask(last, 2, session), GiveUp(3, 2))
                assert Answered(3, Done()) == await raw.receive()
                assert "SessionEnded" == error_of(await raw.ask(Ask(Alloc(0), 4, session)))
                assert 1 == (await host.statistics()).sessions


@pytest.mark.parametrize("request_of_it", [Find(1), Free(1), Alloc(0), FindSet("vm-1")])
async def test_a_tenant_that_is_evicted(request_of_it: Request) -> None:
    """It is told that its session is over, also where its set had to be looked up first."""
    async with a_service() as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        service.server.policy = everybody(Role.TENANT, holders=("vm",), tokens=("vm-1",))
        async with a_raw_client(service.path) as raw:
            session = await opened(raw)
            await host.evict("vm")
            for number in (2, 3):
                answer = await raw.ask(Ask(request_of_it, number, session))
                assert "SessionEnded" == error_of(answer)


async def test_a_suspended_name_is_its_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user that comes under the name is refused, and the holder stays suspended."""
    async with a_service() as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        async with a_raw_client(service.path) as client:
            session = await opened(client, "vtd")
            await client.ask(Ask(Get(1), 2, session))
        while (await host.statistics()).suspended != 1:
            await checkpoint()
        monkeypatch.setattr(
            _server, "credentials_of", lambda _: Credentials(12345, frozenset(), os.getpid())
        )
        service.server.policy = Policy.only(12345)
        async with a_raw_client(service.path) as client:
            await client.hello()
            for number, request in enumerate((OpenSession("vtd"), OpenSession("vtd", UID)), 10):
                assert "HolderOfAnother" == error_of(await client.ask(Ask(request, number)))
            assert isinstance(await client.ask(Ask(OpenSession("new"), 2)), SessionOpened)
            figures = await host.statistics()
            assert (1, {"vtd": 1}) == (figures.suspended, (await host.find(1)).references)


async def test_a_journal_keeps_whose_a_holder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart, another user is refused and the holder's own user gets in."""
    async with a_service(journal=tmp_path / "j") as service, a_raw_client(service.path) as client:
        session = await opened(client, "vtd")
        await client.ask(Ask(AllocSet("vm-1", 8), 2, session))
        await client.ask(Ask(Alloc(0), 3, session))
        assert Done() == await client.ask(Ask(Get(1), 4, session))
    async with a_service(journal=tmp_path / "j") as service:
        service.server.policy = Policy((*Policy.only(12345).rules, *Policy.only(UID).rules))
        with monkeypatch.context() as patch:
            patch.setattr(
                _server, "credentials_of", lambda _: Credentials(12345, frozenset(), os.getpid())
            )
            async with a_raw_client(service.path) as client:
                await client.hello()
                found = await client.ask(Ask(OpenSession("vtd"), 1))
                assert "HolderOfAnother" == error_of(found)
        async with a_raw_client(service.path) as client:
            await client.hello()
            found = await client.ask(Ask(OpenSession("vtd"), 1))
            assert (True, ((1, 1),)) == (found.resumed, found.references)


async def test_a_crash_behind_what_was_left_in_order(tmp_path: Path) -> None:
    """While the disk fails as well: what was left in order is left, and the rest crashed."""
    with failing_disk() as disk:
        async with a_service(journal=tmp_path / "j") as service, a_client(service) as host:
            async with a_raw_client(service.path) as client:
                session = await opened(client)
                await client.ask(Ask(AllocSet("vm-1", 8), 2, session))
                for number, sid in ((3, None), (4, 0)):
                    request = Subscribe(sid, hold=True)
                    found = await client.ask(Ask(request, number, session))
                    assert isinstance(found, Subscribed)
                disk.fail("sync", code=IOERR_FSYNC)
                found = await client.ask(Ask(AllocSet("vm-2", 8), 7, session))
                assert "DiskFailed" == error_of(found)
                await client.send(Ask(Unsubscribe(1), 5, session))
                found = await client.ask(Ask(TakeStatistics(), 6, session))
                assert (2, 2) == (found.subscriptions, found.sessions)
            while service.server.statistics().connections > 1:
                await checkpoint()
            await host.statistics()
            disk.repair()
            await host.reserve_capacity(1)
            figures = await host.statistics()
            assert (1, 1, 1) == (figures.subscriptions, figures.sessions, figures.suspended)


@pytest.mark.parametrize("name", [None, "one who may come back"])
async def test_insisting_and_going(tmp_path: Path, name: str | None) -> None:
    """Who lets go while the disk fails, and is gone then, has let go when it works; none else."""
    with failing_disk() as disk:
        async with a_service(journal=tmp_path / "j") as service, a_client(service) as host:
            await host.alloc_set("vm-1", 8)
            for _ in range(3):
                await host.alloc(0)
            async with a_raw_client(service.path) as client:
                await client.hello(name)
                session = (await client.ask(Ask(OpenSession("vm"), 1))).session
                disk.fail("sync", code=IOERR_FSYNC)
                for number, request in ((6, Alloc(0)), (7, Get(1)), (8, AllocSet("vm-2", 8))):
                    found = await client.ask(Ask(request, number, session, insists=True))
                    assert "DiskFailed" == error_of(found)
                await client.send(Ask(Free(1), 9, session, insists=True))
                found = await client.ask(Ask(Free(2), 10, session))
                assert "DiskFailed" == error_of(found)
            while service.server.statistics().connections > 1:
                await checkpoint()
            assert [1, 2, 3] == [each.ioasid for each in await host.list_set(0)]
            disk.repair()
            await host.reserve_capacity(1)
            assert [2, 3] == [each.ioasid for each in await host.list_set(0)]


async def test_coming_back_before_a_session_is_open(tmp_path: Path) -> None:
    """Who asked for it on a connection that broke does not keep it from who comes back."""
    with failing_disk() as disk:
        async with a_service(journal=tmp_path / "j") as service, a_client(service):
            async with a_raw_client(service.path) as client:
                await client.hello("one who comes back")
                held, release = hold_syncs(disk)
                await client.send(Ask(OpenSession("vtd"), 1))
                while not held.is_set():
                    await checkpoint()
            while service.server.statistics().connections > 1:
                await checkpoint()
            async with a_raw_client(service.path) as client:
                assert (await client.hello("one who comes back")).resumed
                await client.send(Ask(OpenSession("vtd"), 2))
                batches = service.driver.batches
                while service.driver.batches == batches:
                    await checkpoint()
                release.set()
                answer = await client.receive()
                assert isinstance(answer.answer, SessionOpened), answer
                assert 2 == answer.id


async def test_a_narrowed_connection_is_narrow_for_good() -> None:
    """A manager narrows a connection and hands it on; it may not widen what it may not have."""
    async with a_service() as service:
        service.server.policy = everybody(Role.DRIVER, holders=("kvm:",))
        async with a_raw_client(service.path) as client:
            await client.send(Narrow("vm-1", ("vtd",)))
            assert "PermissionDenied" == error_of(await client.receive())
        service.server.policy = everybody(Role.TENANT, tokens=("vm-*",), holders=("kvm:",))
        async with a_raw_client(service.path) as client:
            await client.send(Narrow("vm-1", ("kvm:",)))
            assert "PermissionDenied" == error_of(await client.receive())
        for token in (None, "vm", "xvm-1"):
            async with a_raw_client(service.path) as client:
                await client.send(Hello((1,), None, token))
                assert "PermissionDenied" == error_of(await client.receive())
        async with a_raw_client(service.path) as client:
            assert "tenant" == (await client.hello(token="vm-7")).role


# The end


async def test_the_end_of_a_subscription_is_told() -> None:
    """A set that goes ends its subscription, drained; what came before comes before."""
    async with (
        a_service() as service,
        a_client(service) as host,
        a_raw_client(service.path) as client,
    ):
        await host.alloc_set("vm-1", 8)
        session = await opened(client)
        kinds = frozenset({EventKind.ALLOC})
        number = (await client.ask(Ask(Subscribe(sid=0, kinds=kinds), 2, session))).subscription
        await host.alloc(0)
        await host.free_set(0)
        event = await client.receive()
        assert isinstance(event, Deliver)
        assert isinstance(event.message, Event)
        assert End(number, True) == await client.receive()


async def test_the_end_of_the_server_is_told() -> None:
    """It says goodbye, and nothing comes after it."""
    async with a_service() as service:
        client = Raw(await anyio.connect_unix(service.path), WireFormat.MSGPACK)
        await opened(client)
    assert Goodbye("was shut down") == await client.receive()
    assert None is await client.receive()
    await client.stream.aclose()


@pytest.mark.parametrize("ending", [Unsubscribe, Detach])
async def test_who_ends_a_subscription_before_it_is_told_its_number(ending: Any) -> None:
    """It may guess: each answer is right, nothing comes for one that ended, and all goes on."""
    async with (
        a_service() as service,
        a_client(service) as host,
        a_raw_client(service.path) as client,
    ):
        await host.alloc_set("vm-1", 8)
        session = await opened(client)
        subscribe, guessed = Subscribe(hold=True), 1 if ending is Detach else 2
        await client.send(
            *(Ask(subscribe, 2, session), Ask(ending(1), 3, session)),
            *(Ask(subscribe, 4, session), Ask(ending(guessed), 5, session)),
            *(Ask(subscribe, 6, session), Ask(CloseSession(), 7, session)),
        )
        frames = [await client.receive()]
        while frames[-1] != Answered(7, Done()):
            frames.append(await client.receive())
        answers = [each.answer for each in frames if type(each) is Answered]
        numbers = [1, 1, 1] if ending is Detach else [1, 2, 3]
        assert numbers == [each.subscription for each in answers if type(each) is Subscribed]
        assert 1 == await host.alloc(0)


async def test_who_is_back_in_the_batch_that_ended_it_has_not_ended() -> None:
    """What ended is the subscription of before: the client is told of the new one alone."""
    async with a_service() as service, a_raw_client(service.path) as client:
        session = await opened(client)
        subscribe = Subscribe(hold=True)
        assert Subscribed(1, resumed=False) == await client.ask(Ask(subscribe, 2, session))
        await client.send(Ask(Detach(1), 3, session), Ask(subscribe, 4, session))
        frames = [await client.receive() for _ in range(3)]
        assert Answered(3, Done()) == frames[0]
        assert Answered(4, Subscribed(1, resumed=True)) == frames[1]
        assert type(frames[2]) is Deliver
        await client.send(Ask(Unsubscribe(1), 5, session))
        assert Answered(5, Done()) == await client.receive()
