"""What every store has to do, in memory and in etcd."""

from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

from ioasid.fleet import HostRecord, MemoryStore, Store, alive_hosts, announce, open_etcd
from tests.fleet import stores
from tests.fleet.stores import ETCD, Authority, Etcd, answers, etcd
from tests.service.programs import PATIENCE

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Where both run."""
    return "asyncio"


one_loop = pytest.fixture(scope="module", autouse=True)(stores.one_loop)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs for a server with TLS, and for its clients."""
    return Authority.make(tmp_path_factory.mktemp("authority") / "files")


@pytest.fixture(scope="module", params=["memory", "etcd", "etcd with TLS"])
def server(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Etcd | None]:
    """A server for the module, if it is to be one."""
    if request.param == "memory":
        yield None
        return
    if ETCD is None:
        pytest.skip("no etcd here; make fleet-test says how")
    with etcd(authority=authority if "TLS" in request.param else None) as running:
        yield running


@pytest.fixture
async def store(server: Etcd | None, authority: Authority) -> AsyncIterator[Store]:
    """A store of each kind."""
    if server is None:
        yield MemoryStore()
        return
    tls = authority.client() if "--client-cert-auth" in server.command else None
    async with open_etcd(port=server.port, tls=tls) as opened:
        await answers(opened)
        found, _ = await opened.get("")
        await opened.txn({}, {**dict.fromkeys(found), "x": None})
        yield opened


async def test_a_transaction_is_all_or_nothing(store: Store) -> None:
    """It compares revisions, 0 for what is not there, and writes only if all are as expected."""
    first = await store.txn({"a": 0}, {"a": b"1"})
    assert first is not None
    assert None is await store.txn({"a": 0}, {"a": b"2"})
    assert None is await store.txn({"a": first, "b": first}, {"a": b"2", "b": b"2"})
    second = await store.txn({"a": first, "b": 0}, {"a": b"2", "b": b"2"})
    assert second is not None
    found, revision = await store.get("")
    assert {"a": (b"2", second), "b": (b"2", second)} == {
        key: (each.value, each.revision) for key, each in found.items()
    }
    assert revision == second > first
    assert None is not await store.txn({"a": second}, {"a": None})
    assert {"b"} == set((await store.get(""))[0])
    assert {} == (await store.get("a"))[0]


async def test_a_watch_begins_where_it_is_told(store: Store) -> None:
    """It tells what was written before it began, deletions too, and of its prefix alone."""
    first = await store.txn({}, {"w/a": b"1"})
    second = await store.txn({}, {"w/a": b"2", "x/a": b"2"})
    third = await store.txn({}, {"w/a": None})
    assert first is not None
    assert second is not None
    for prefix, expected in (
        ("w/", [("w/a", b"2", second), ("w/a", None, third)]),
        ("", [("w/a", b"2", second), ("x/a", b"2", second), ("w/a", None, third)]),
    ):
        seen = []
        with anyio.fail_after(PATIENCE):
            async with store.watch(prefix, second) as changes:
                async for change in changes:
                    seen.append((change.key, change.value, change.revision))
                    if len(seen) == len(expected):
                        break
        assert expected == seen


async def test_what_is_written_with_a_lease_goes_with_it(store: Store) -> None:
    """A lease can be kept up as long as it is there; ended, it takes its keys along."""
    lease = await store.lease(5)
    await store.txn({}, {"l": b""}, lease)
    assert await lease.keep()
    assert {"l"} == set((await store.get("l"))[0])
    await lease.end()
    assert {} == (await store.get("l"))[0]
    assert not await lease.keep()


async def test_what_is_written_again_goes_with_the_last_lease(store: Store) -> None:
    """A host that began anew is not gone with the lease of the process before."""
    before, now = await store.lease(100), await store.lease(100)
    await store.txn({}, {"a": b"1", "b": b"1"}, before)
    await store.txn({}, {"a": b"2"}, now)
    await store.txn({}, {"b": b"2"})
    await before.end()
    assert {"a", "b"} == set((await store.get(""))[0]) - {"x"}
    await now.end()
    assert {"b"} == set((await store.get(""))[0]) - {"x"}


async def test_hosts_are_alive_while_they_say_so(store: Store) -> None:
    """A host that left is not among them."""
    async with announce(store, "a", seconds=5), announce(store, "b", seconds=5):
        with anyio.fail_after(PATIENCE):
            async with store.watch("host/", 1) as changes:
                seen: set[str] = set()
                async for change in changes:
                    seen.add(change.key)
                    if {"host/a", "host/b"} <= seen:
                        break
        assert (HostRecord("a"), HostRecord("b")) == await alive_hosts(store)
    assert () == await alive_hosts(store)
