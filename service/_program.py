"""The service as a program: an allocator, its socket and its signals, from a configuration."""

import errno
import logging
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from importlib.util import find_spec
from os.path import samestat
from pathlib import Path
from typing import Final

import anyio
from anyio import create_task_group, open_signal_receiver

from ioasid.actors._local_port import LocalPort
from ioasid.actors._open import open_driver
from ioasid.actors._port import answered
from ioasid.actors._session import Session
from ioasid.core import CloseSession, InvalidArgument, IoasidError, OpenSession, SessionOpened
from ioasid.service._config import Config
from ioasid.service._credentials import credentials_of
from ioasid.service._descriptors import raise_limit
from ioasid.service._gate import Gate, Member
from ioasid.service._metrics import Exposition, take_figures
from ioasid.service._policy import Policy, read_policy
from ioasid.service._server import Server, serving
from ioasid.service._systemd import notify, passed_socket, state_directory

__all__ = ["serve"]

logger = logging.getLogger("ioasid.service")

BACKLOG: Final = 1024


async def serve(config: Config, member: Member | None = None) -> None:
    """Serve an allocator until SIGTERM or SIGINT, which end it in order.

    SIGHUP reads the policy file again; one that is no good is logged, and the old one stays. Where
    there is none it ends it, too, as closing a terminal ends any program; not under a service
    manager or `nohup`. Tells a service manager that it is ready, and that it stops. `member` is
    what a `config.fleet` needs: that of `ioasid.fleet`. Raises `InvalidArgument` and OSError for a
    configuration that does not do.
    """
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(create_task_group())
        # What is noticed of signals from here on is theirs, however early they come.
        ends_by_hangup = _ends_by_hangup(config)
        signals = stack.enter_context(
            open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        )
        policy = _policy(config)
        raise_limit(config.limits.connections)
        with listener_of(config) as listener:
            async with (
                _allocator(config) as driver,
                _fleet(config, driver, member) as gate,
                serving(driver, listener, policy, limits=config.limits, gate=gate) as server,
            ):
                if config.metrics is not None:
                    exposition = _exposition()
                    # With h11, which that extra brings as well.
                    from ioasid.service._scrapes import serving_metrics

                    async def scraped() -> bytes:
                        return exposition.text(await take_figures(driver, server))

                    # It names holders and groups: for whom the process shares its group with.
                    sock = stack.enter_context(own_socket(config.metrics, 0o660, None))
                    await stack.enter_async_context(serving_metrics(sock, scraped, tasks))
                notify("READY=1")
                logger.info("serving %s", listener.getsockname() or "a socket that was passed")
                async for number in signals:
                    if number != signal.SIGHUP or ends_by_hangup:
                        break
                    _read_again(config, server)
                notify("STOPPING=1")
                logger.info("stopping")
        tasks.cancel_scope.cancel()
    logger.info("stopped")


def run(config: Config, member: Member | None = None) -> None:
    """Run `serve` on an event loop of its own: on uvloop, which serves more, where it is there."""
    with_uvloop = find_spec("uvloop") is not None
    anyio.run(serve, config, member, backend_options={"use_uvloop": with_uvloop})


@asynccontextmanager
async def _allocator(config: Config) -> AsyncIterator[LocalPort]:
    kept = _journal(config)
    if kept is None:
        logger.warning("there is no journal: what is served is forgotten when this process ends")
    opened = open_driver(
        capacity=config.capacity, order=config.order, journal=kept, on_reboot=config.on_reboot
    )
    async with opened as driver:
        if kept is not None:
            logger.info("the journal is %s", kept)
        yield driver


@asynccontextmanager
async def _fleet(
    config: Config, driver: LocalPort, member: Member | None
) -> AsyncIterator[Gate | None]:
    if config.fleet is None:
        yield None
        return
    if member is None:
        raise InvalidArgument("fleet", config.fleet, "none: no fleet comes with this program")
    host = socket.gethostname() if config.host is None else config.host
    name = f"fleet:{host}"
    opened = answered(await driver.send(OpenSession(name)), SessionOpened)
    port = driver.join(opened)
    try:
        async with member(config.fleet, host, Session(port, name, opened)) as gate:
            logger.info("this is the host %s of the fleet at %s", host, config.fleet)
            yield gate
    finally:
        port.leave(CloseSession())


def _journal(config: Config) -> Path | None:
    if config.journal is not None:
        return Path(config.journal)
    folder = state_directory()
    return folder and folder / "ioasid.journal"


def _exposition() -> Exposition:
    try:
        return Exposition()
    except ModuleNotFoundError:
        expected = "nothing without the extra `service`: pip install '.[service]' in a checkout"
        raise InvalidArgument("metrics", "a path", expected) from None


def _policy(config: Config) -> Policy:
    return Policy.only(os.getuid()) if config.policy is None else read_policy(config.policy)


def _ends_by_hangup(config: Config) -> bool:
    # A manager sends it for nothing but to have the policy read, of which there may be none.
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return config.policy is None and "NOTIFY_SOCKET" not in os.environ and not ignored


def _read_again(config: Config, server: Server) -> None:
    try:
        server.policy = _policy(config)
    except (OSError, IoasidError) as error:
        logger.error("the policy file is no good, and the old policy stays: %s", error)
    else:
        logger.info("policy reloaded; it applies to new connections")


@contextmanager
def listener_of(config: Config) -> Iterator[socket.socket]:
    """Give the socket to listen on: one that was passed, or one that is made, and goes again."""
    passed = passed_socket()
    if passed is not None:
        with passed:
            yield passed
    else:
        with own_socket(config.socket, config.mode, config.group) as sock:
            yield sock


@contextmanager
def own_socket(path: str, mode: int, group: str | None) -> Iterator[socket.socket]:
    """Make a Unix socket that listens; its file goes in the end, if it is still this one's.

    Raises as `bound` does.
    """
    # A descriptor of its own listens to the end, whenever the server closes the other: until the
    # file is gone no successor takes it for left behind, and no other file has its number.
    with bound(path, mode, group) as sock, sock.dup():
        file = Path(path)
        made = file.stat()
        try:
            yield sock
        finally:
            try:
                if samestat(made, file.stat()):
                    file.unlink()
            except OSError:
                # It is gone, or stays for the next one to replace.
                pass


def bound(path: str, mode: int, group: str | None) -> socket.socket:
    """Make a Unix socket that listens; one that a process left behind is replaced.

    Raises OSError that names the path, also if somebody listens there.
    """
    by = "a service"
    if Path(path).is_socket():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(path)
            except (ConnectionRefusedError, FileNotFoundError):
                Path(path).unlink(missing_ok=True)
            except BlockingIOError:
                # Somebody listens, and has much to do.
                pass
            else:
                pid = credentials_of(probe.fileno()).pid
                # The first process listens for others; 0 is one of another container.
                by += f" with the process ID {pid}" * (pid > 1)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Nobody else connects before it has its owner and mode; it listens as soon as it is seen.
        before = os.umask(0o177)
        try:
            sock.bind(path)
            sock.listen(BACKLOG)
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno == errno.EADDRINUSE:
                reason = (
                    f"it is in use by {by}; end that first, or choose another socket"
                    if Path(path).is_socket()
                    else "it is there, and no socket; choose another"
                )
            elif error.errno == errno.ENOENT:
                folder = Path(path).parent
                reason = f"the folder {folder} is not there; make it, or choose another socket"
            raise OSError(error.errno or errno.EINVAL, reason, path) from None
        finally:
            os.umask(before)
        if group is not None:
            try:
                shutil.chown(path, group=group)
            except LookupError:
                raise InvalidArgument("group", group, "a group that there is") from None
        Path(path).chmod(mode)
    except BaseException:
        sock.close()
        raise
    return sock
