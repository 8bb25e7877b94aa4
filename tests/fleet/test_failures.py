"""Whatever an etcd does in place of answering: which error it is, and what that says."""

import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final

import anyio
import pytest

from ioasid.fleet import (
    EtcdStore,
    HostRecord,
    RecordTooLarge,
    StoreForbidden,
    StoreFull,
    StoreUnavailable,
    UnreadableRecord,
    alive_hosts,
    announce,
    open_etcd,
)
from tests.fleet import stores
from tests.fleet.stores import ETCD, answers, etcd, free_port
from tests.service.programs import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
needs_etcd = pytest.mark.skipif(ETCD is None, reason="no etcd here; make fleet-test says how")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Where the client library runs."""
    return "asyncio"


one_loop = pytest.fixture(scope="module", autouse=True)(stores.one_loop)
server = pytest.fixture(scope="module")(stores.server)
store = pytest.fixture(stores.store)


@asynccontextmanager
async def a_store(*options: str) -> AsyncIterator[tuple[EtcdStore, stores.Etcd]]:
    """An etcd of its own, which answers."""
    with etcd(*options) as server:
        async with open_etcd(port=server.port) as store:
            await answers(store)
            yield store, server


@contextmanager
def nobody() -> Iterator[int]:
    """A port at which nobody listens."""
    yield free_port()


@contextmanager
def silent() -> Iterator[int]:
    """A port at which somebody listens, and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@contextmanager
def http() -> Iterator[int]:
    """A port at which a web server answers."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@contextmanager
def tls() -> Iterator[int]:
    """The port of an etcd with TLS."""
    port = free_port()
    urls = (f"--listen-client-urls=https://127.0.0.1:{port}", "--auto-tls")
    with etcd(*urls, f"--advertise-client-urls=https://127.0.0.1:{port}") as server:
        server.port = port
        server.answers()
        yield port


CALLS: Final[dict[str, Callable[[EtcdStore], Awaitable[object]]]] = {
    "get": lambda store: store.get("vm/"),
    "txn": lambda store: store.txn({}, {"vm/1": b""}),
    "lease": lambda store: store.lease(10),
}
NO_STORE: Final = {
    "nobody": (nobody, "nothing listens there; start it there, or give the address"),
    "silent": (silent, "it says nothing for 2 s; ask again, and see whether it hangs"),
    "http": (http, "something else than an etcd listens there; give the port that an etcd has"),
    "tls": (tls, "it hangs up, as one does that has TLS, or has none; give the port"),
}


@pytest.mark.parametrize(
    "where", [pytest.param(each, marks=needs_etcd) if each == "tls" else each for each in NO_STORE]
)
async def test_there_is_no_store(where: str) -> None:
    """Each call names the address, what is found there and what to do, whatever that is."""
    server, words = NO_STORE[where]
    with server() as port:
        async with open_etcd(port=port) as store:
            for call in CALLS.values():
                with pytest.raises(StoreUnavailable) as caught:
                    await call(store)
                assert StoreUnavailable is type(caught.value)
                assert f"EAGAIN: the etcd at http://127.0.0.1:{port} does not answer: {words}" in (
                    str(caught.value)
                )


async def test_there_is_no_such_host() -> None:
    """A name that is none is told from a host at which nobody listens."""
    async with open_etcd("nowhere.invalid") as store:
        with pytest.raises(StoreUnavailable, match="the name of the host is not known; give one"):
            await store.get("")


@needs_etcd
async def test_a_store_that_hangs() -> None:
    """An etcd that is stopped says nothing; it goes on, and so does what is asked of it."""
    async with a_store() as (store, server):
        assert server.process is not None
        server.stop()
        try:
            for call in CALLS.values():
                with pytest.raises(StoreUnavailable, match="it says nothing for 2 s"):
                    await call(store)
        finally:
            server.process.send_signal(signal.SIGCONT)
        await answers(store)
        assert await store.txn({}, {"vm/1": b"1"})


@needs_etcd
async def test_a_full_store() -> None:
    """It is read on, and refuses what is written with what an operator is to do."""
    async with a_store("--quota-backend-bytes=65536") as (store, _):
        with pytest.raises(StoreFull) as caught:
            await fill(store)
        expected = "has the size that it may have; compact and defragment it, or raise its quota"
        assert expected in str(caught.value)
        assert "ENOSPC" == caught.value.code
        with pytest.raises(StoreFull):
            await store.lease(10)
        assert (await store.get("x/0"))[0]


async def fill(store: EtcdStore) -> None:
    """Write on and on."""
    for number in range(1000):
        await store.txn({}, {f"x/{number}": bytes(4096)})


@needs_etcd
async def test_a_store_that_asks_for_a_password() -> None:
    """It is said that it does, and who watches is told at once, too."""
    async with a_store() as (store, server):
        revision = await store.txn({}, {"vm/1": b"1"})
        assert revision is not None
        await guard(server)
        for name in ("get", "txn"):
            with pytest.raises(StoreForbidden) as caught:
                await CALLS[name](store)
            expected = "it asks for a user and a password; give the address of another"
            assert ("EACCES", True) == (caught.value.code, expected in str(caught.value))
        async with store.watch("vm/", revision) as changes:
            with anyio.fail_after(PATIENCE), pytest.raises(StoreForbidden):
                await anext(changes)


async def guard(server: stores.Etcd) -> None:
    """Let in nobody who has no password."""
    from aetcd import rpc

    async with rpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        auth = rpc.AuthStub(channel)
        await auth.UserAdd(rpc.AuthUserAddRequest(name="root", password="p"))
        await auth.RoleAdd(rpc.AuthRoleAddRequest(name="root"))
        await auth.UserGrantRole(rpc.AuthUserGrantRoleRequest(user="root", role="root"))
        await auth.AuthEnable(rpc.AuthEnableRequest())


@needs_etcd
async def test_more_than_it_takes_at_once(store: EtcdStore) -> None:
    """A record that is too large is refused for good, and nothing of it is there."""
    for size in (1_600_000, 5_000_000):
        with pytest.raises(RecordTooLarge) as caught:
            await store.txn({}, {"large/1": bytes(size)})
        expected = "it has a bound for a request; start it with a larger --max-request-bytes"
        assert ("EMSGSIZE", True) == (caught.value.code, expected in str(caught.value))
    assert {} == (await store.get("large/"))[0]


@needs_etcd
async def test_more_is_read_than_is_written_at_once(store: EtcdStore) -> None:
    """The records of many VMs together may be more than one of them."""
    for number in range(5):
        await store.txn({}, {f"many/{number}": bytes(1_000_000)})
    assert 5 == len((await store.get("many/"))[0])


@needs_etcd
async def test_a_lease_that_has_ended(store: EtcdStore) -> None:
    """Nothing is written with it, it can't be kept up, and ending it again is no error."""
    lease = await store.lease(10)
    assert await store.txn({}, {"leased/a": b"1"}, lease)
    await lease.end()
    assert {} == (await store.get("leased/"))[0]
    assert None is await store.txn({}, {"leased/a": b"1"}, lease)
    assert {} == (await store.get("leased/"))[0]
    assert not await lease.keep()
    await lease.end()


@needs_etcd
async def test_what_others_keep_there(store: EtcdStore) -> None:
    """A key that is no text is nobody's; a record that is none is named, and stays."""
    await store._client.put(b"host/\xff", b"x")
    await store.txn({}, {"host/b": b"no record"})
    with pytest.raises(UnreadableRecord, match="under 'host/b' is no record of a fleet"):
        await alive_hosts(store)
    assert 2 == len((await store.get("host/"))[0])


@needs_etcd
async def test_a_host_says_that_its_store_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    """Its log has what is met, and that the store is back."""
    caplog.set_level("INFO", "ioasid.fleet")
    send, receive = anyio.create_memory_object_stream[str](100)

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            send.send_nowait(record.getMessage())

    async def told(words: str) -> None:
        with anyio.fail_after(PATIENCE):
            while words not in await receive.receive():
                pass

    log, handler = logging.getLogger("ioasid.fleet"), Told()
    log.addHandler(handler)
    with send, receive:
        async with a_store() as (store, server), announce(store, "a", seconds=1):
            server.kill()
            await told("the fleet takes a for not alive: EAGAIN: the etcd at http://127.0.0.1")
            server.start()
            await told("the store of the fleet answers again")
            assert (HostRecord("a"),) == await alive_hosts(store)
        log.removeHandler(handler)
