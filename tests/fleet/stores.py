"""An etcd of one's own, on loopback, in a scratch directory."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
import trustme
from attrs import define, frozen

from ioasid.fleet import EtcdStore, Store, StoreUnavailable, Tls, open_etcd
from tests.service.programs import PATIENCE

ETCD = shutil.which(os.environ.get("IOASID_ETCD", "etcd"))
"""The server, if there is one."""


FIRST: Final = 10_000
COUNT: Final = 20_000
"""They are below those that connections are given."""
PORTS: Final = (FIRST + (16 * os.getpid() + each) % COUNT for each in range(COUNT))
"""Other ones in other processes, and each once."""


@define(eq=False)
class Etcd:
    """A server that can be killed and started again, with what it had."""

    port: int
    command: list[str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def answers(self) -> None:
        """Wait until it takes connections."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with socket.socket() as asking:
                if asking.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise AssertionError("etcd does not answer")

    def stop(self) -> None:
        """Stop it, so that it does not even refuse, until a SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def kill(self) -> None:
        """Kill it, without a warning."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@frozen
class Authority:
    """An authority for certificates, with files in a folder of its own."""

    folder: Path
    signs: trustme.CA

    @classmethod
    def make(cls, folder: Path) -> "Authority":
        """Make one, whose own certificate is in `ca`."""
        folder.mkdir()
        made = cls(folder, trustme.CA())
        made.signs.cert_pem.write_to_path(made.ca)
        return made

    @property
    def ca(self) -> str:
        """Whom to trust."""
        return str(self.folder / "ca")

    def certify(self, name: str) -> tuple[str, str]:
        """Return the files of a certificate made out for a name, and of its key."""
        made = self.signs.issue_cert(name)
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))
        made.private_key_pem.write_to_path(key)
        return str(certificate), str(key)

    def client(self) -> Tls:
        """Return what a client of it needs."""
        certificate, key = self.certify("client")
        return Tls(ca=self.ca, certificate=certificate, key=key)


@contextmanager
def etcd(*options: str, authority: Authority | None = None) -> Iterator[Etcd]:
    """Run an etcd for the length of a `with`, with these options besides.

    With an authority it has TLS, and asks who comes.
    """
    assert ETCD is not None, "there is an etcd"
    port, peer = free_port(), free_port()
    if authority is not None:
        certificate, key = authority.certify("127.0.0.1")
        options += ("--cert-file", certificate, "--key-file", key)
        options += ("--trusted-ca-file", authority.ca, "--client-cert-auth")
    with tempfile.TemporaryDirectory() as folder:
        command = [ETCD, "--name", "one", "--data-dir", str(Path(folder) / "data")]
        for option, number in (("client", port), ("peer", peer)):
            with_tls = option == "client" and authority is not None
            url = f"http{'s' * with_tls}://127.0.0.1:{number}"
            command += [f"--listen-{option}-urls", url]
            name = "advertise-client-urls" if option == "client" else "initial-advertise-peer-urls"
            command += [f"--{name}", url]
        command += ["--initial-cluster", f"one=http://127.0.0.1:{peer}", *options]
        server = Etcd(port, command)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def server() -> Iterator[Etcd]:
    """An etcd for a module: what a fixture does."""
    with etcd() as running:
        yield running


async def store(server: Etcd) -> AsyncIterator[EtcdStore]:
    """The store in it, when it answers: what a fixture does."""
    async with open_etcd(port=server.port) as opened:
        await answers(opened)
        yield opened


async def answers(store: Store) -> None:
    """Wait until a store answers."""
    with anyio.fail_after(PATIENCE):
        while True:
            try:
                await store.get("")
                return
            except StoreUnavailable:
                await anyio.sleep(0.1)


async def one_loop() -> AsyncIterator[None]:
    """Keep one event loop for a module, and end it when the client's library is done with it.

    The library polls for the whole process, and calls back into a loop that has ended.
    """
    yield
    await anyio.sleep(0.2)


def free_port() -> int:
    """A port of loopback that nobody listens at, and that no connection is given as its own."""
    for port in PORTS:
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there is none")
