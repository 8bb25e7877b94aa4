"""The gate of a host: what clients of its service may make, by what the fleet has."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from attrs import define, field

from ioasid.actors import Session
from ioasid.actors._open import open_driver
from ioasid.core import (
    CloseSession,
    InvalidArgument,
    IoasidError,
    OpenSession,
    TokenInUse,
    TokenType,
    UnknownGroup,
)
from ioasid.fleet import (
    FleetGate,
    Found,
    MemoryStore,
    StoreUnavailable,
    TenantRecord,
    Tenants,
    UnreadableRecord,
)
from ioasid.service import Policy, RefusedByServer, connect_allocator, serving
from tests.service.services import UID, listening

pytestmark = pytest.mark.anyio


@define(eq=False)
class GoingStore(MemoryStore):
    """A store that may be gone."""

    gone: bool = field(default=False, kw_only=True)

    async def get(self, prefix: str) -> tuple[dict[str, Found], int]:
        if self.gone:
            raise StoreUnavailable("gone")
        return await MemoryStore.get(self, prefix)


@asynccontextmanager
async def a_host(
    folder: Path, store: MemoryStore, name: str = "a"
) -> AsyncIterator[tuple[FleetGate, Session]]:
    """Serve an allocator whose sets the fleet counts; gives its gate and a client."""
    with listening(folder / name) as listener:
        async with open_driver(capacity=100) as driver:
            opened = await driver.send(OpenSession("fleet"))
            port = driver.join(opened)
            gate = FleetGate(name, Session(port, "fleet", opened), Tenants(store))
            async with (
                serving(driver, listener, Policy.only(UID), gate=gate),
                connect_allocator(str(folder / name), holder="client") as client,
            ):
                await client.alloc_group("acme", 50)
                await client.alloc_group("acme/x", 20, parent="acme")
                yield gate, client
            port.leave(CloseSession())


async def refused(error: str, make: object) -> None:
    """Assert that something is refused, by an error that a client does not know."""
    with pytest.raises(RefusedByServer) as caught:
        await make  # type: ignore[misc]
    assert error == caught.value.error


async def test_sets_are_made_by_what_the_fleet_has(tmp_path: Path) -> None:
    """A claim comes before each, in the name of the group above all others."""
    store = MemoryStore()
    async with a_host(tmp_path, store) as (gate, a), a_host(tmp_path, store, "b") as (_, b):
        await gate.tenants.limit("acme", 10)
        made = await a.alloc_set("vm-1", 6, TokenType.MM, group="acme/x")
        await refused("VmElsewhere", b.alloc_set("vm-1", 1))
        await refused("TenantExhausted", b.alloc_set("vm-2", 5, group="acme"))
        await b.alloc_set("vm-2", 4, group="acme")
        assert TenantRecord("acme", 10, 10) == await gate.tenants.look("acme")
        await refused("TenantExhausted", a.adjust_set(made.sid, 7))
        await a.adjust_set(made.sid, 2)
        assert TenantRecord("acme", 10, 6) == await gate.tenants.look("acme")
        await a.adjust_set(made.sid, 6)
        with pytest.raises(TokenInUse):
            await a.alloc_set("vm-1", 1)
        # What the allocator refuses counts nothing.
        for error, call in (
            (UnknownGroup, a.alloc_set("vm-3", 1, group="other")),
            (InvalidArgument, a.alloc_set("vm-3", 0, group="acme")),
            (InvalidArgument, a.alloc_set("vm-3", None)),
            (InvalidArgument, a.alloc_set(quota=1, token_type=TokenType.NULL, group="acme/x")),
            (IoasidError, a.alloc_set("vm-3", 99)),
            (IoasidError, a.adjust_set(77, 9)),
        ):
            with pytest.raises(error):
                await call
        found, _ = await store.get("vm/")
        assert {"vm/vm-1", "vm/vm-2"} == set(found)
        assert TenantRecord("acme", 10, 10) == await gate.tenants.look("acme")


async def test_what_is_gone_is_given_back_when_it_is_needed(tmp_path: Path) -> None:
    """Before its tenant is refused at the same host, and by a look at any other time."""
    store = MemoryStore()
    async with a_host(tmp_path, store) as (gate, client):
        await gate.tenants.limit("acme", 6)
        for token in ("vm-1", "vm-2"):
            made = await client.alloc_set(token, 6, group="acme")
            await client.free_set(made.sid, wait=True)
        assert TenantRecord("acme", 6, 6) == await gate.tenants.look("acme")
        await gate.mend()
        assert TenantRecord("acme", 6, 0) == await gate.tenants.look("acme")


async def test_what_was_there_before_is_counted(tmp_path: Path) -> None:
    """A host that joins has its sets counted, and leaves alone what is another's."""
    store = GoingStore()
    async with a_host(tmp_path, store) as (gate, client):
        for token in ("vm-1", "vm-2"):
            await client.alloc_set(token, 6, group="acme/x")
        await store.txn({}, {"vm/vm-1": None, "vm/vm-2": None, "tenant/acme": None})
        await gate.tenants.claim("vm-2", "b", 3, tenant="acme")
        await gate.mend()
        assert TenantRecord("acme", None, 9) == await gate.tenants.look("acme")
        await gate.tenants.resize("vm-1", "a", 1)
        await gate.mend()
        assert TenantRecord("acme", None, 9) == await gate.tenants.look("acme")


async def test_without_its_store_nothing_is_made(tmp_path: Path) -> None:
    """It is the safe side; what there is goes on, and later all is well again."""
    store = GoingStore()
    async with a_host(tmp_path, store) as (gate, client):
        made = await client.alloc_set("vm-1", 6, group="acme")
        store.gone = True
        await refused("StoreUnavailable", client.alloc_set("vm-2", 1))
        await refused("StoreUnavailable", client.adjust_set(made.sid, 9))
        assert 1 == await client.alloc(made.sid)
        store.gone = False
        await client.alloc_set("vm-2", 1)
        assert TenantRecord("acme", None, 6) == await gate.tenants.look("acme")


async def test_what_comes_later_waits(tmp_path: Path) -> None:
    """Requests of a connection are decided in their order, at the gate as well."""
    async with a_host(tmp_path, MemoryStore()) as (_, client):
        seen: list[object] = []

        async def ask(call: object) -> None:
            seen.append(await call)  # type: ignore[misc]

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, client.alloc_set("vm-1", 6))
            tasks.start_soon(ask, client.find_set("vm-1"))
        assert 2 == len(seen)
        assert seen[0] == seen[1]


async def test_a_record_of_something_else(tmp_path: Path) -> None:
    """Its token is refused by what it is; the host serves others, and says what it can't mend."""
    store = MemoryStore()
    async with a_host(tmp_path, store) as (gate, client):
        await store.txn({}, {"vm/vm-1": b"\xc1"})
        await refused("UnreadableRecord", client.alloc_set("vm-1", 6))
        assert 6 == (await client.alloc_set("vm-2", 6)).quota
        with pytest.raises(UnreadableRecord):
            await gate.mend()


async def test_what_can_be_no_token_is_the_allocators(tmp_path: Path) -> None:
    """It has the words for it, and the fleet counts nothing."""
    store = MemoryStore()
    async with a_host(tmp_path, store) as (_, client):
        for token in ("", "x" * 256):
            with pytest.raises(InvalidArgument, match="token is"):
                await client.alloc_set(token, 6)
        assert {} == (await store.get("vm/"))[0]
