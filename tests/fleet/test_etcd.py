"""The store in etcd: as the one in memory, and over a server that is killed."""

import os
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from ioasid.core import InvalidArgument, IoasidError
from ioasid.fleet import (
    Coordinator,
    EtcdStore,
    HistoryLost,
    HostAgent,
    Phase,
    StoreForbidden,
    StoreUnavailable,
    Tls,
    open_etcd,
    open_store,
)
from tests.fleet import stores
from tests.fleet.stores import ETCD, Authority, Etcd, answers, etcd
from tests.fleet.worlds import VM, open_world
from tests.service.programs import PATIENCE

pytestmark = pytest.mark.anyio
KILLS = int(os.environ.get("IOASID_KILLS", "3"))
"""How many times the test over a server that is killed twice is run."""
needs_etcd = pytest.mark.skipif(ETCD is None, reason="no etcd here; make fleet-test says how")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Where the client library runs."""
    return "asyncio"


one_loop = pytest.fixture(scope="module", autouse=True)(stores.one_loop)
server = pytest.fixture(scope="module")(stores.server)
store = pytest.fixture(stores.store)


@needs_etcd
async def test_a_vm_moves(store: EtcdStore) -> None:
    """The protocol over etcd: four compare-and-sets, and the record says so."""
    async with open_world() as world:
        for name, host in world.hosts.items():
            world.agents[name] = HostAgent(name, store, host)
        coordinator = Coordinator(store, world.agents.__getitem__)
        await coordinator.own(VM, "a")
        _, before = await store.get("vm/")
        await coordinator.move(VM, "b")
        found, after = await store.get("vm/")
        assert (4, {f"vm/{VM}"}) == (after - before, set(found))
        record = await coordinator.where(VM)
        assert ("b", Phase.OWNED, 1) == (record.host, record.phase, record.epoch)


@needs_etcd
async def test_a_watch_goes_on_over_a_server_that_was_killed(
    store: EtcdStore, server: Etcd
) -> None:
    """Nothing is left out, and nothing comes twice."""
    first = await store.txn({}, {"w/0": b"0"})
    assert first is not None
    seen: list[tuple[str, int]] = []
    written: list[tuple[str, int]] = [("w/0", first)]

    async def watch() -> None:
        async with store.watch("w/", first) as changes:
            async for change in changes:
                seen.append((change.key, change.revision))
                if change.key == "w/last":
                    return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        for number in range(1, 6):
            revision = await store.txn({}, {f"w/{number}": b"", f"w/{number}b": b""})
            assert revision is not None
            written += [(f"w/{number}", revision), (f"w/{number}b", revision)]
            if number == 3:
                server.kill()
                with pytest.raises(StoreUnavailable):
                    await store.get("w/")
                server.start()
                await answers(store)
        revision = await store.txn({}, {"w/last": b""})
        assert revision is not None
        written.append(("w/last", revision))
    assert written == seen


@needs_etcd
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(KILLS))
async def test_two_coordinators_over_a_store_that_is_killed(
    store: EtcdStore, server: Etcd, seed: int
) -> None:
    """They move, finish and abort while the server dies where it is, and comes back."""
    random = Random(seed)
    async with open_world() as world:
        for name, host in world.hosts.items():
            world.agents[name] = HostAgent(name, store, host)
        await store.txn({}, {f"vm/{VM}": None})
        await Coordinator(store, world.agents.__getitem__).own(VM, "a")

        async def act() -> None:
            coordinator = Coordinator(store, world.agents.__getitem__)
            for _ in range(20):
                try:
                    match random.choice(("move", "move", "finish", "abort")):
                        case "move":
                            await coordinator.move(VM, random.choice("ab"))
                        case "finish":
                            await coordinator.finish(VM)
                        case _:
                            await coordinator.abort(VM)
                except IoasidError:
                    pass

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(act)
            tasks.start_soon(act)
            for _ in range(2):
                await anyio.sleep(random.random() / 10)
                server.kill()
                server.start()
                await answers(store)
        await Coordinator(store, world.agents.__getitem__).finish(VM)
        record = await Coordinator(store, world.agents.__getitem__).where(VM)
        assert record.host == await world.check(store=store)


@needs_etcd
async def test_what_the_server_dropped_is_not_passed_over(store: EtcdStore) -> None:
    """Who watches from before a compaction is told, and does not wait for ever."""
    first = await store.txn({}, {"c/0": b"0"})
    last = await store.txn({}, {"c/0": b"1"})
    assert first is not None
    assert last is not None
    await store._client.compact(last)
    async with store.watch("c/", first) as changes:
        with anyio.fail_after(PATIENCE), pytest.raises(HistoryLost):
            await anext(changes)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "nowhere",
            "http://",
            "http://a:99999",
            "http://a/b",
            "ftp://a",
            None,
            7,
            b"http://a",
        ),
        *("http://a?ca=f", "https://a?x=f", "https://a?ca=", "https://a?ca=f&ca=f", "https://a?ca"),
    ],
)
def test_a_url_that_is_none_is_refused(url: Any) -> None:
    """It is that of an etcd, with or without TLS, and names each file once."""
    with pytest.raises(InvalidArgument):
        open_store(url)


@pytest.mark.parametrize(
    "where", [{"host": ""}, {"host": 7}, {"port": 0}, {"port": 2**16}, {"port": "2379"}]
)
async def test_an_address_that_is_none_is_refused(where: dict[str, Any]) -> None:
    """A host or port of the wrong type or range is an argument error."""
    with pytest.raises(InvalidArgument):
        async with open_etcd(**where):
            pass


@pytest.mark.parametrize("how", ["ca", {}, True])
async def test_what_is_no_way_to_reach_it_is_refused(how: Any) -> None:
    """TLS is told by a `Tls`."""
    with pytest.raises(InvalidArgument, match="tls"):
        async with open_etcd(tls=how):
            pass


async def test_files_that_do_not_do_are_refused(tmp_path: Path) -> None:
    """What TLS can't use is named before anything is asked, and so is a file that is not there."""
    ours, others = (Authority.make(tmp_path / each) for each in ("ours", "others"))
    certificate, key = ours.certify("one")
    _, other = others.certify("one")
    locked = tmp_path / "locked"
    secret = rsa.generate_private_key(65537, 2048)
    locked.write_bytes(
        secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a word"))
    )
    for tls, wrong in (
        (Tls(certificate=certificate), "key"),
        (Tls(key=key), "certificate"),
        (Tls(ca=key), "ca"),
        (Tls(ca=""), "ca"),
        (Tls(ca="a\0b"), "ca"),
        (Tls(ca=7), "ca"),  # type: ignore[arg-type]
        (Tls(certificate=certificate, key=other), "certificate"),
        (Tls(certificate=ours.ca, key=key), "certificate"),
        (Tls(certificate=certificate, key=str(locked)), "certificate"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            async with open_etcd(tls=tls):
                pass
        assert wrong == refused.value.argument
    missing = str(tmp_path / "none")
    for tls in (Tls(ca=missing), Tls(certificate=missing, key=key)):
        with pytest.raises(FileNotFoundError) as gone:
            async with open_etcd(tls=tls):
                pass
        assert missing == str(gone.value.filename)


@needs_etcd
async def test_whoever_is_not_trusted_is_told_so(tmp_path: Path, server: Etcd) -> None:
    """Neither side takes the other without knowing it; each message says what is wrong."""
    ours, others = (Authority.make(tmp_path / each) for each in ("ours", "others"))
    tls, foreign = ours.client(), others.client()
    with etcd(authority=ours) as guarded:
        url = f"https://127.0.0.1:{guarded.port}?ca={tls.ca}"
        async with open_store(f"{url}&certificate={tls.certificate}&key={tls.key}") as opened:
            await answers(opened)
        for port, host, how, kind, said in (
            (
                guarded.port,
                "127.0.0.1",
                None,
                StoreUnavailable,
                "it hangs up, as one does that has TLS",
            ),
            (guarded.port, "127.0.0.1", Tls(), StoreUnavailable, "not trusted"),
            (guarded.port, "127.0.0.1", evolve(tls, ca=others.ca), StoreUnavailable, "not trusted"),
            (guarded.port, "localhost", tls, StoreUnavailable, "another name's"),
            (guarded.port, "127.0.0.1", Tls(ca=ours.ca), StoreForbidden, "asks who comes"),
            (guarded.port, "127.0.0.1", evolve(foreign, ca=ours.ca), StoreForbidden, "who comes"),
            (server.port, "127.0.0.1", tls, StoreUnavailable, "it has no TLS|has none"),
        ):
            async with open_etcd(host, port, tls=how) as store:
                with pytest.raises(StoreUnavailable, match=said) as refused:
                    await store.get("")
                assert kind is type(refused.value)
