"""Connecting, leaving, and what a client sees of a service that is not there."""

import asyncio
import os
import socket
import sys
from contextlib import AbstractAsyncContextManager
from math import inf, nan
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel
import pytest

from ioasid.actors import ActorStopped, CloseVm, Kvm
from ioasid.actors._open import open_driver
from ioasid.core import (
    AllocatorClosed,
    HolderLive,
    InvalidArgument,
    NotCommitted,
    WireFormat,
    refusal_of,
)
from ioasid.service import (
    ConnectionFailed,
    PermissionDenied,
    Role,
    ServerConnection,
    TooMany,
    connect_allocator,
    serving,
)
from ioasid.service import Limits as Bounds
from tests.actors.hosts import settle
from tests.journal.disk import IOERR_FSYNC, failing_disk
from tests.service.services import a_client, a_service, everybody, listening

pytestmark = pytest.mark.anyio


class Crashed(Exception):
    """What ends a client in these tests."""


async def test_leaving_is_acknowledged() -> None:
    """When the scope is left the session is closed: its name can be taken at once."""
    async with a_service() as service, a_client(service) as host:
        for wire_format in WireFormat:
            async with a_client(service, "vm", wire_format=wire_format) as vm:
                assert "vm" == vm.name
                assert 2 == (await host.statistics()).sessions
                with pytest.raises(HolderLive):
                    async with a_client(service, "vm"):
                        raise AssertionError
            assert 1 == (await host.statistics()).sessions


async def test_leaving_while_the_disk_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for ever; the server closes the session when the disk works."""
    monkeypatch.setattr("ioasid.service._connect.LEAVE_WITHIN", 0.01)
    with failing_disk() as disk:
        async with a_service(journal=tmp_path / "j") as service, a_client(service) as host:
            await host.alloc_set("vm-1", 8)
            await host.alloc(0)
            await host.alloc(0)
            async with a_client(service, "vtd") as vtd, vtd.subscribe(hold=True):
                await vtd.get(2)
                await host.free(1)
                disk.fail("sync", code=IOERR_FSYNC)
                with pytest.raises(NotCommitted):
                    await vtd.get(2)
            figures = await host.statistics()
            assert (1, 1, 2) == (figures.free_pending, figures.subscriptions, figures.sessions)
            disk.repair()
            await host.reserve_capacity(1)
            figures = await host.statistics()
            assert (0, 0, 1) == (figures.free_pending, figures.subscriptions, figures.sessions)
            assert (0, {}) == (figures.suspended, (await host.find(2)).references)


async def test_leaving_outlasts_a_disk_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk works in time, whoever leaves has left when that returns."""
    monkeypatch.setattr("ioasid.service._connect.LEAVE_WITHIN", inf)
    monkeypatch.setattr("ioasid.actors._allocator.RETRY", 0.01)
    with failing_disk() as disk:
        async with a_service(journal=tmp_path / "j") as service, a_client(service) as host:
            broken, left = anyio.Event(), anyio.Event()

            async def leave() -> None:
                async with a_client(service, "vtd") as vtd:
                    disk.fail("sync", code=IOERR_FSYNC)
                    with pytest.raises(NotCommitted):
                        await vtd.reserve_capacity(1)
                    broken.set()
                left.set()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(leave)
                await broken.wait()
                await settle()
                assert not left.is_set()
                assert 2 == (await host.statistics()).sessions
                disk.repair()
                await left.wait()
            assert 1 == (await host.statistics()).sessions


async def left_in_another_task(manager: AbstractAsyncContextManager[Any]) -> str:
    """Enter in one task and leave in another; returns what that is told."""
    before = asyncio.all_tasks()
    await asyncio.create_task(manager.__aenter__())
    with pytest.raises(RuntimeError, match="was left in another task") as caught:
        await asyncio.create_task(manager.__aexit__(None, None, None))
    await anyio.wait_all_tasks_blocked()
    assert before == asyncio.all_tasks()
    return str(caught.value).partition(" ")[0]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_left_in_another_task(tmp_path: Path) -> None:
    """Whoever leaves in another task is told what is wrong; it has left all the same."""
    async with a_service() as service, a_client(service) as host:
        client = connect_allocator(service.path, holder="vm")
        assert "connect_allocator" == await left_in_another_task(client)
        assert 1 == (await host.statistics()).sessions
    driven = open_driver()
    async with open_driver() as driver:
        with listening(tmp_path / "socket") as listener:
            served = serving(driver, listener, everybody(Role.OPERATOR))
            assert "serving" == await left_in_another_task(served)
    assert "open_driver" == await left_in_another_task(driven)


async def test_a_crash_suspends() -> None:
    """An exception leaves as it was raised, and the holder is suspended with what it had."""
    error = Crashed()
    async with a_service() as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        with pytest.raises(Crashed) as caught:
            async with a_client(service, "vm") as vm:
                await vm.get(1)
                raise error
        assert error is caught.value
        while (await host.statistics()).suspended != 1:
            await anyio.lowlevel.checkpoint()
        async with a_client(service, "vm") as vm:
            assert (True, ((1, 1),)) == (vm.opened.resumed, vm.opened.references)


DENIED: Final = """
import os, sys
import anyio
from anyio._backends import _asyncio
from ioasid.service import SocketDenied, connect_allocator
async def main():
    try:
        async with connect_allocator(sys.argv[1], holder="vm"):
            print("in")
    except SocketDenied as error:
        print(error)
os.setgid(65534)
os.setuid(65534)
anyio.run(main)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_socket_that_is_not_for_this_user() -> None:
    """It is there, and somebody answers: what is missing is the permission, and so it says."""
    async with a_service() as service:
        service.path.parent.chmod(0o755)
        service.path.chmod(0o600)
        done = await anyio.run_process([sys.executable, "-c", DENIED, str(service.path)])
        said = done.stdout.decode()
        assert said.startswith(
            f"EACCES: this user may not connect to {service.path}; join the group"
        )


REFUSED: Final[dict[str, tuple[Any, ...]]] = {
    "path": (None, 5, b"socket", "", "a\0b"),
    "holder": (None, 5, ""),
    "token": (5, b"vm-1", True),
    "reconnect_within": (-5, True, "5", None, nan),
    "wire_format": ("nonsense", 5, None, []),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values]
)
async def test_what_it_is_not_connected_by(tmp_path: Path, name: str, value: Any) -> None:
    """Each argument is checked before anything is done, and named."""
    given: dict[str, Any] = {"path": tmp_path / "gone", "holder": "vm", name: value}
    with pytest.raises(InvalidArgument) as raised:
        async with connect_allocator(**given):
            raise AssertionError
    assert name == raised.value.argument


async def test_nobody_answers(tmp_path: Path) -> None:
    """No socket, a file, somebody who hangs up: the path is named, and what to do."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "gone", tmp_path / "file"):
        with pytest.raises(ConnectionFailed, match=str(path)):
            async with connect_allocator(path, holder="vm"):
                raise AssertionError
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(os.fspath(tmp_path / "s"))
        listener.listen()

        async def hang_up() -> None:
            await anyio.wait_readable(listener)
            listener.accept()[0].close()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hang_up)
            with pytest.raises(ConnectionFailed, match="ended before it began"):
                async with connect_allocator(tmp_path / "s", holder="vm"):
                    raise AssertionError


async def test_refused_before_a_word_was_said() -> None:
    """Whoever is refused is told why, also if the server was gone before its Hello was sent."""
    refused = refusal_of(PermissionDenied("user 7", "connect"))
    ours, theirs = socket.socketpair()
    theirs.sendall(ServerConnection().pack(refused))
    theirs.close()
    with pytest.raises(PermissionDenied, match="user 7"):
        async with connect_allocator(ours, holder="vm"):
            raise AssertionError
    ours, theirs = socket.socketpair()
    theirs.close()
    with pytest.raises(ConnectionFailed, match="before it began"):
        async with connect_allocator(ours, holder="vm"):
            raise AssertionError


async def test_bad_arguments() -> None:
    """They are refused by name, before or by the server."""
    async with a_service() as service:
        for holder in ("", "x" * 256):
            with pytest.raises(InvalidArgument, match="holder is"):
                async with a_client(service, holder):
                    raise AssertionError
        with pytest.raises(InvalidArgument, match="token is"):
            async with a_client(service, token=""):
                raise AssertionError
        with pytest.raises(InvalidArgument, match="reconnect_within"):
            async with a_client(service, reconnect_within="soon"):
                raise AssertionError


async def test_a_socket_that_was_handed_on() -> None:
    """It serves as a path does, but for coming back."""
    async with a_service() as service, a_client(service) as host:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(os.fspath(service.path))
        async with connect_allocator(sock, holder="vm", reconnect_within=0) as vm:
            await vm.alloc_set("vm-1", 8)
            assert 1 == await host.alloc(0)
            await host.evict("vm")
        assert 1 == (await host.statistics()).sessions


async def test_a_tenant_chooses_its_token() -> None:
    """Where its policy leaves a choice."""
    policy = everybody(Role.TENANT, tokens=("vm-*",), holders=("kvm:",))
    async with a_service() as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        service.server.policy = policy
        async with connect_allocator(service.path, holder="kvm:vm-1", token="vm-1") as vm:
            assert 1 == await vm.alloc(0)
            assert ["vm-1"] == [each.token for each in (await vm.list_sets()).sets]


async def test_more_requests_than_a_server_takes_at_once() -> None:
    """The client keeps the rest back, and waits are counted by themselves."""
    async with a_service(limits=Bounds(requests=3, waits=1)) as service, a_client(service) as host:
        await host.alloc_set("vm-1", 200)
        got: list[int] = []

        async def alloc() -> None:
            got.append(await host.alloc(0))

        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(alloc)
        assert list(range(1, 101)) == sorted(got)
        async with host.session("dsa") as dsa, anyio.create_task_group() as tasks:
            await dsa.get(1)
            tasks.start_soon(lambda: host.free(1, wait=True))
            while (await host.statistics()).free_pending != 1:
                await anyio.lowlevel.checkpoint()
            with pytest.raises(TooMany):
                await host.free(1, wait=True)
            await dsa.put(1)


async def test_the_end_of_a_service() -> None:
    """Every call says that it was shut down, and so does what waits."""
    async with a_service() as service, a_client(service) as host:
        await host.alloc_set("vm-1", 8)
        await host.get(await host.alloc(0))
        refused: list[str] = []

        async def wait() -> None:
            async with host.session("vm") as vm:
                try:
                    await vm.free(1, wait=True)
                except AllocatorClosed as error:
                    refused.append(error.reason)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            while not (await host.statistics()).free_pending:
                await anyio.lowlevel.checkpoint()
            await service.server.end("was shut down")
        assert ["was shut down"] == refused
        with pytest.raises(AllocatorClosed, match="was shut down"):
            await host.statistics()


async def test_the_end_of_a_service_ends_device_actors(caplog: pytest.LogCaptureFixture) -> None:
    """A driver in a client is told of an orderly end, too: nobody can reach it any more."""
    async with a_service() as service, anyio.create_task_group() as tasks:
        async with a_client(service) as host:
            await host.alloc_set("vm-1", 8)
            kvm = Kvm("vm-1")
            await tasks.start(kvm.run, host)
            events = await host.subscribe().__aenter__()
            await service.server.end("was shut down")
            with anyio.fail_after(10):
                await kvm.ended.wait()
            with pytest.raises(ActorStopped, match="allocator, which was shut down"):
                await kvm.ask(CloseVm())
            assert [] == [each async for each in events]
            with pytest.raises(AllocatorClosed, match="was shut down"):
                events.take()
            with pytest.raises(AllocatorClosed, match="was shut down"):
                await tasks.start(Kvm("vm-2").run, host)
    assert ["kvm:vm-1 ended with the allocator, which was shut down"] == caplog.messages


async def test_leaving_a_service_ends_device_actors() -> None:
    """A driver that is left behind when the connection is left ends as well."""
    async with a_service() as service, anyio.create_task_group() as tasks:
        async with a_client(service) as host:
            kvm = Kvm("vm-1")
            await tasks.start(kvm.run, host)
        with anyio.fail_after(10):
            await kvm.ended.wait()


async def test_device_actors_run_in_a_client() -> None:
    """A driver is an actor over a remote session as over any other."""
    async with (
        a_service() as service,
        a_client(service) as host,
        anyio.create_task_group() as tasks,
    ):
        await host.alloc_set("vm-1", 8)
        kvm = Kvm("vm-1")
        await tasks.start(kvm.run, host)
        ioasid = await host.alloc(0)
        await host.attach_spid(ioasid, 101)
        while kvm.table != {101: ioasid}:
            await anyio.lowlevel.checkpoint()
        assert {kvm.holder: 1} == (await host.find(ioasid)).references
        assert True is await host.free(ioasid, wait=True)
        assert {} == kvm.table
        kvm.stop()
        await kvm.ended.wait()
