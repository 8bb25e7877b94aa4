"""Who only looks: needs no session, changes nothing, and is answered while a disk fails."""

import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio.to_thread import run_sync
from msgspec.structs import replace

from ioasid.core import (
    ListSets,
    NotCommitted,
    OpenSession,
    SessionEnded,
    UnknownToken,
)
from ioasid.service import Ask, Role
from ioasid.service._connect import looking
from tests.journal.disk import failing_disk
from tests.service.programs import call
from tests.service.services import a_client, a_raw_client, a_service, everybody

pytestmark = pytest.mark.anyio


def without_time(found: Any) -> Any:
    """A snapshot without the time, which goes on by itself."""
    return replace(found, now=0.0)


async def test_it_sees_what_a_session_sees_and_changes_nothing() -> None:
    """The same answers; no holder is made, and no request is carried out."""
    async with a_service() as service, a_client(service) as host:
        await host.alloc_group("tenant", 8)
        vm = await host.alloc_set("vm-1", 4, group="tenant")
        await host.alloc(vm.sid)
        before = await host.snapshot()
        async with looking(service.path, None) as looker:
            assert await host.find_set("vm-1") == await looker.find_set("vm-1")
            assert await host.find_set(sid=0) == await looker.find_set(sid=0)
            assert await host.list_set(0) == await looker.list_set(0)
            assert await host.list_sets() == await looker.list_sets()
            assert await host.list_groups() == await looker.list_groups()
            assert await host.find(1) == await looker.find(1)
            assert await host.explain(1) == await looker.explain(1)
            assert ["host"] == [each.holder for each in (await looker.list_holders()).holders]
            assert 1 == (await looker.statistics()).sessions
            with pytest.raises(UnknownToken):
                await looker.find_set("vm-2")
        assert without_time(before) == without_time(await host.snapshot())


async def test_looking_while_the_disk_is_full(tmp_path: Path) -> None:
    """Who has no session is answered, before anything is repaired."""
    with failing_disk() as disk:
        async with a_service(journal=tmp_path / "j") as service, a_client(service) as host:
            await host.alloc_set("vm-1", 4)
            disk.fail("write", code=sqlite3.SQLITE_FULL)
            with pytest.raises(NotCommitted):
                await host.alloc(0)
            async with looking(service.path, None) as looker:
                assert ["vm-1"] == [each.token for each in (await looker.list_sets()).sets]


# The clock of trio's tests does not wait for a thread.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_command_line_while_the_disk_is_full(tmp_path: Path) -> None:
    """What only looks works, what changes something says why not, and so does `watch`."""
    with failing_disk() as disk:
        async with a_service(journal=tmp_path / "j") as service, a_client(service) as host:
            run: Callable[..., Any] = partial(call, "--socket", str(service.path))

            async def told(*arguments: str) -> tuple[int, str, str]:
                return await run_sync(partial(run, *arguments))

            vm = await host.alloc_set("vm-1", 4)
            await host.alloc(vm.sid)
            disk.fail("write", code=sqlite3.SQLITE_FULL)
            with pytest.raises(NotCommitted):
                await host.alloc(vm.sid)
            before = await host.snapshot()
            for command, seen in (
                (("status",), "capacity"),
                (("sets",), "vm-1"),
                (("set", "vm-1"), "ACTIVE"),
                (("groups",), "limit"),
                (("holders",), "host"),
                (("find", "1"), "ACTIVE"),
                (("why", "1"), "1 (vm-1) is in use"),
            ):
                status, out, error = await told(*command)
                assert (0, "", True) == (status, error, seen in out)
            for command in (("alloc", "vm-1"), ("watch",)):
                status, out, error = await told(*command)
                assert (1, "") == (status, out)
                assert "ENOSPC" in error
                assert "`ioasid watch` does not, for it subscribes" in error
            assert without_time(before) == without_time(await host.snapshot())
            disk.repair()
            assert 2 == await host.alloc(vm.sid)


async def test_what_a_session_is_needed_for() -> None:
    """On a connection with sessions a look is the first one's; session 0 is nobody's."""
    async with a_service() as service, a_raw_client(service.path) as client:
        await client.hello()
        assert () == (await client.ask(Ask(ListSets(), 1))).sets
        for number, session in enumerate((0, 99), 2):
            answer = await client.ask(Ask(ListSets(), number, session))
            assert SessionEnded.__name__ == answer.error
        await client.ask(Ask(OpenSession("vm"), 4))
        assert () == (await client.ask(Ask(ListSets(), 5))).sets


async def test_a_tenant_that_looks() -> None:
    """It sees its own set, and nothing else exists for it."""
    policy = everybody(Role.TENANT, holders=("kvm:",), tokens=("vm-*",))
    async with a_service() as service, a_client(service) as host:
        await host.alloc_set("vm-1", 4)
        await host.alloc_set("vm-2", 4)
        service.server.policy = policy
        async with looking(service.path, "vm-2") as looker:
            assert ["vm-2"] == [each.token for each in (await looker.list_sets()).sets]
            with pytest.raises(UnknownToken):
                await looker.find_set("vm-1")
