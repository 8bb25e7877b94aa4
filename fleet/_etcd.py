"""The store in etcd, by the client library `aetcd`, which the extra `fleet` brings; on asyncio.

That is asyncio and uvloop; on trio the library does not run.
"""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from anyio import sleep
from attrs import define, fields, frozen

from ioasid.core import InvalidArgument
from ioasid.fleet._errors import (
    HistoryLost,
    RecordTooLarge,
    StoreForbidden,
    StoreFull,
    StoreUnavailable,
)
from ioasid.fleet._store import Changed, Found, Lease

__all__ = ["EtcdStore", "Tls", "open_etcd", "open_store"]

PATIENCE: Final = 2
"""Seconds after which a call that was not answered is given up."""
EVERYTHING: Final = b"\0", b"\0"
"""The range of all keys, as etcd has it."""
AGAIN: Final = 0.1
"""Seconds until a watch whose server is gone is tried again."""
OPTIONS: Final = {"grpc.max_receive_message_length": -1}
"""Of the connection: a fleet of many VMs is more than gRPC takes unless told."""

_LEASE_GONE: Final = "requested lease not found"
_TELL: Final = "give the address of another, or turn that off (`etcdctl auth disable`)"
_START: Final = "start it there, or give the address of one that runs"
_WHICH_PORT: Final = (
    "give the port that an etcd has for clients, 2379 unless told, and https:// if it has TLS, "
    "http:// if not"
)
_WHICH_CA: Final = (
    "give the authority that signed it as ca, and the name or address that it is made out for"
)
_WHO: Final = "give a certificate that its authority signed, and the key"
_ENLARGE: Final = "start it with a larger --max-request-bytes"
_MAJORITY: Final = "ask again when most of its members run"
_Kind: TypeAlias = type[StoreUnavailable] | type[RecordTooLarge]
_MET: Final[dict[str, tuple[_Kind, str, str]]] = {
    "user name is empty": (StoreForbidden, "it asks for a user and a password", _TELL),
    "permission denied": (StoreForbidden, "it permits this to its users only", _TELL),
    "invalid auth token": (StoreForbidden, "it asks for a user and a password", _TELL),
    "database space exceeded": (
        StoreFull,
        "its database has the size that it may have",
        "compact and defragment it, or raise its quota, and then `etcdctl alarm disarm`",
    ),
    "message larger than max": (RecordTooLarge, "it has a bound for a request", _ENLARGE),
    "request is too large": (RecordTooLarge, "it has a bound for a request", _ENLARGE),
    "connection refused": (StoreUnavailable, "nothing listens there", _START),
    "lookup": (StoreUnavailable, "the name of the host is not known", "give one that is"),
    "certificate_verify_failed": (StoreUnavailable, "its certificate is not trusted", _WHICH_CA),
    "hostname verification": (StoreUnavailable, "its certificate is another name's", _WHICH_CA),
    "peer name": (StoreUnavailable, "its certificate is another name's", _WHICH_CA),
    "wrong_version_number": (StoreUnavailable, "it has no TLS", "give its address as http://"),
    "unwrap failed": (StoreForbidden, "it asks who comes, and does not trust the answer", _WHO),
    "http/2": (StoreUnavailable, "something else than an etcd listens there", _WHICH_PORT),
    "socket closed": (
        StoreUnavailable,
        "it hangs up, as one does that has TLS, or has none",
        _WHICH_PORT,
    ),
    "deadline exceeded": (
        StoreUnavailable,
        f"it says nothing for {PATIENCE} s",
        "ask again, and see whether it hangs, or is no etcd",
    ),
    "request timed out": (StoreUnavailable, "its members come to no decision", _MAJORITY),
    "no leader": (StoreUnavailable, "it has no leader", _MAJORITY),
    "leader changed": (StoreUnavailable, "it has a new leader", "ask again"),
}
"""What etcd or gRPC says, in small letters: the error, what that means, and what to do."""


@frozen(kw_only=True)
class Tls:
    """Reach an etcd by TLS; all are paths of files in PEM, which are read when it is opened.

    `ca` holds the authorities that its certificate may be signed by; unless told, those that gRPC
    comes with. `certificate` and `key` say who comes, to an etcd that asks (`--client-cert-auth`).
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


@asynccontextmanager
async def open_etcd(
    host: str = "127.0.0.1", port: int = 2379, *, tls: Tls | None = None
) -> AsyncIterator["EtcdStore"]:
    """Use the etcd at this address as a `Store`, for the length of an `async with`.

    It is reached without TLS unless told how. Nothing is asked of it yet. Raises ImportError
    without `aetcd`, `InvalidArgument`, and OSError for a file that can't be read.
    """
    import aetcd

    if type(host) is not str or not host:
        raise InvalidArgument.of("host", host, "the name or address of a host")
    if type(port) is not int or not 0 < port < 2**16:
        raise InvalidArgument.of("port", port, "a whole number in 1..65535")
    if tls is not None and type(tls) is not Tls:
        raise InvalidArgument.of("tls", tls, "a Tls")
    name = f"[{host}]" if ":" in host else host
    address = {"host": name, "port": port, "timeout": PATIENCE, "options": OPTIONS}
    client = aetcd.Client(**address) if tls is None else _client_by(_read(tls), **address)
    url = f"{'http' if tls is None else 'https'}://{name}:{port}"
    try:
        yield EtcdStore(client, url, aetcd.ClientError, aetcd.RevisionCompactedError)
    finally:
        await client.close()


def _read(tls: Tls) -> dict[str, bytes | None]:
    # What gRPC can't use it does not say before it is asked, and not in words.
    if (tls.certificate is None) != (tls.key is None):
        missing = "key" if tls.key is None else "certificate"
        raise InvalidArgument(missing, "not given", "a certificate and its key, or none of both")
    found: dict[str, bytes | None] = {}
    for each in fields(Tls):
        path = getattr(tls, each.name)
        if path is not None and (type(path) is not str or not path or "\0" in path):
            raise InvalidArgument.of(each.name, path, "the path of a file")
        found[each.name] = None if path is None else Path(path).read_bytes()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca is not None:
        try:
            context.load_verify_locations(tls.ca)
        except ssl.SSLError:
            raise InvalidArgument("ca", tls.ca, "a file with certificates in PEM") from None
    if tls.certificate is not None:
        try:
            # Nobody is asked for the password of a key that has one.
            context.load_cert_chain(tls.certificate, tls.key, password="")
        except ssl.SSLError:
            expected = f"a file in PEM whose key, without a password, is in {tls.key}"
            raise InvalidArgument("certificate", tls.certificate, expected) from None
    return found


def _client_by(files: Mapping[str, bytes | None], **address: Any) -> Any:
    # The library connects without TLS only; a channel does nothing before it is asked something,
    # so another one can take its place.
    from aetcd import Client, rpc
    from aetcd.watcher import Watcher
    from grpc import ssl_channel_credentials

    credentials = ssl_channel_credentials(files["ca"], files["key"], files["certificate"])

    class ClientByTls(Client):  # type: ignore[misc]
        channel: Any

        async def connect(self) -> None:
            if self._connected.is_set():
                return
            await super().connect()
            plain, target = self.channel, f"{self._host}:{self._port}"
            self.channel = rpc.secure_channel(target, credentials, options=self._options.items())
            self.kvstub, self.leasestub = rpc.KVStub(self.channel), rpc.LeaseStub(self.channel)
            self._watcher = Watcher(rpc.WatchStub(self.channel), timeout=self._timeout)
            await plain.close()

    return ClientByTls(**address)


def open_store(url: str) -> AbstractAsyncContextManager["EtcdStore"]:
    """Use the store at a URL such as `http://127.0.0.1:2379`, an etcd, as `open_etcd` does.

    One with TLS is `https://HOST:PORT?ca=FILE&certificate=FILE&key=FILE`, the last two where it
    asks who comes. Raises `InvalidArgument`.
    """
    expected = "a URL such as http://127.0.0.1:2379, an etcd, or https://127.0.0.1:2379?ca=FILE"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        files = dict(pairs)
    except (AttributeError, TypeError, ValueError):
        raise InvalidArgument.of("fleet", url, expected) from None
    with_tls = parts.scheme == "https"
    known = {each.name for each in fields(Tls)} if with_tls else set()
    if (
        parts.scheme not in ("http", "https")
        or not host
        or parts.path not in ("", "/")
        or not files.keys() <= known
        or len(files) < len(pairs)
        or not all(files.values())
    ):
        raise InvalidArgument.of("fleet", url, expected)
    return open_etcd(host, port or 2379, tls=Tls(**files) if with_tls else None)


@define(eq=False)
class EtcdStore:
    """An etcd, as a `Store`; made by `open_etcd`."""

    _client: Any
    _url: str
    _error: type[Exception]
    _lost: type[Exception]

    async def get(self, prefix: str) -> tuple[dict[str, Found], int]:
        """Return all keys that begin so, with what is there, and the revision of that moment."""
        with self._answering():
            found = await (
                self._client.get_prefix(prefix.encode()) if prefix else self._client.get_all()
            )
        there = {_text(each.key): Found(each.value, each.mod_revision) for each in found}
        return there, found.header.revision

    async def txn(
        self,
        compare: Mapping[str, int],
        write: Mapping[str, bytes | None],
        lease: Lease | None = None,
    ) -> int | None:
        """Write keys if these have the revisions that are expected: all or nothing."""
        parts = self._client.transactions
        of = lease.number if isinstance(lease, _Lease) else None
        with self._answering():
            try:
                done, answers = await self._client.transaction(
                    compare=[parts.mod(key.encode()) == rev for key, rev in compare.items()],
                    success=[
                        parts.delete(key.encode())
                        if value is None
                        else parts.put(key.encode(), value, lease=of)
                        for key, value in write.items()
                    ],
                    failure=[],
                )
            except self._error as error:
                if _LEASE_GONE not in str(error):
                    raise
                done, answers = False, ()
        if not done:
            return None
        first = answers[0]
        header = getattr(first, first.WhichOneof("response")).header
        return int(header.revision)

    def watch(self, prefix: str, start: int) -> AbstractAsyncContextManager[AsyncIterator[Changed]]:
        """Return every change of keys that begin so, from the revision `start` on."""
        return self._watch(prefix, start)

    @asynccontextmanager
    async def _watch(self, prefix: str, start: int) -> AsyncIterator[AsyncIterator[Changed]]:
        changes = self._changes(prefix, start)
        try:
            yield changes
        finally:
            await changes.aclose()

    async def _changes(self, prefix: str, start: int) -> Any:
        # Several keys may be of one revision: what was seen of the last one is not told again.
        revision, seen = start, set[str]()
        while True:
            try:
                watch = await (
                    self._client.watch_prefix(prefix.encode(), start_revision=revision)
                    if prefix
                    else self._client.watch(*EVERYTHING, start_revision=revision)
                )
                try:
                    if watch.watch_id < 0:
                        # It was refused, which a read tells the reason of.
                        await self.get(prefix)
                        raise self._error
                    async for event in watch:
                        key, now = _text(event.kv.key), event.kv.mod_revision
                        if now > revision:
                            revision, seen = now, set()
                        if key in seen:
                            continue
                        seen.add(key)
                        gone = event.kind == "DELETE"
                        yield Changed(key, None if gone else event.kv.value, now)
                finally:
                    await watch.cancel()
            except self._lost as error:
                raise HistoryLost(revision) from error
            except StoreForbidden:
                raise
            except (StoreUnavailable, self._error):
                pass
            await sleep(AGAIN)

    async def lease(self, seconds: int) -> Lease:
        """Begin a lease."""
        with self._answering():
            made = await self._client.lease(seconds)
        return _Lease(self, made.id)

    @contextmanager
    def _answering(self) -> Any:
        try:
            yield
        except self._error as error:
            store = f"the etcd at {self._url}"
            # A watch that is not answered in time says nothing.
            said = str(error) or "deadline exceeded"
            for words, (kind, found, advice) in _MET.items():
                if words in said.lower():
                    raise kind(found, store, advice) from error
            raise StoreUnavailable(f"it says {said!r}", store) from error


def _text(key: bytes) -> str:
    # Other programs may have other keys, which no name here comes to.
    return key.decode(errors="surrogateescape")


@define(eq=False)
class _Lease:
    store: EtcdStore
    number: int

    async def keep(self) -> bool:
        with self.store._answering():
            return bool((await self.store._client.refresh_lease(self.number)).TTL)

    async def end(self) -> None:
        with self.store._answering():
            try:
                await self.store._client.revoke_lease(self.number)
            except self.store._error as error:
                if _LEASE_GONE not in str(error):
                    raise
