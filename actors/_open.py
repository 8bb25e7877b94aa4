"""`open_allocator`: an allocator for the length of an `async with`."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from os import PathLike, fsencode, fspath
from pathlib import Path
from typing import Any

from anyio import create_task_group

from ioasid.actors._allocator import DRIVER, AllocatorActor
from ioasid.actors._commit import Commit
from ioasid.actors._durable import Durable, Keeper, keeper_everywhere
from ioasid.actors._local_port import LocalPort
from ioasid.actors._one_task import one_task
from ioasid.actors._port import answered
from ioasid.actors._reply import clock
from ioasid.actors._session import Session
from ioasid.actors._taps import Decision, Tap, Taps, taps_everywhere
from ioasid.core import (
    Allocator,
    AllocatorClosed,
    InvalidArgument,
    OpenSession,
    ReuseOrder,
    SessionOpened,
    Snapshot,
    SuspendAll,
)
from ioasid.core._check import name as check_name
from ioasid.journal._reboot import OnReboot

__all__ = ["open_allocator"]


@asynccontextmanager
async def open_allocator(
    *,
    capacity: int | None = None,
    holder: str = "host",
    snapshot: Snapshot | None = None,
    order: ReuseOrder | None = None,
    mailbox_size: int = 1024,
    taps: Collection[Tap] = (),
    commit: Commit | None = None,
    journal: str | PathLike[str] | None = None,
    on_reboot: OnReboot = "keep",
) -> AsyncIterator[Session]:
    """Run an allocator for the length of an `async with`; gives its first session.

    `capacity` is the number of IDs, 1..2^32-1, 2^20 unless told (`install_capacity` changes it
    before use). `holder` names the first session. `order` is the order in which free IDs are given
    out, `ReuseOrder.LOWEST` unless told. `snapshot` goes on from a state taken before:
    its holders crashed, so those with references or holding subscriptions are suspended until
    sessions of their names come back and the rest left; the first session comes back as `holder`.
    `mailbox_size` bounds the requests decided in one batch, 1 or more; who asks beyond that waits
    its turn, and every holder has its share of a batch. `taps` are called with every decision, in
    order; one that raises is logged and removed. `commit` is awaited with what was carried out,
    before anything of it leaves: for a journal of your own. What it raises takes the allocator
    down.

    `journal` is a file that keeps what is answered and told: whoever opens it again goes on from
    there, as from a `snapshot`, whatever ended the process. `capacity` and `order` are for a new
    one, and have to be right for another. A request that can't be kept is refused with
    `NotCommitted`. `on_reboot` is what to do when the host was booted since: "keep" everything, for
    hardware may still be programmed, or "forget" IDs, sets and holders, where every boot leaves it
    clean.

    Leaving the scope ends the allocator: in order, everything asked before is answered; with an
    exception or a cancellation, at once. Whoever is still waiting gets `AllocatorClosed`. An
    error inside the allocator, a defect of ours, ends the scope and is raised from it; in a group
    only if the body failed for another reason besides.

    Raises `InvalidArgument` for arguments out of range, `MalformedMessage` for a bad snapshot, and
    `JournalInUse`, `JournalDamaged`, `JournalForeign`, `JournalFolderMissing`, `JournalForbidden`,
    `JournalUnusable` or `NotCommitted` for a journal.
    """
    check_name(holder, "holder")
    driven = _driven(
        holder, capacity, snapshot, order, mailbox_size, taps, commit, journal, on_reboot
    )
    with one_task("open_allocator"):
        async with driven as (port, first):
            opened = first or answered(await port.send(OpenSession(holder)), SessionOpened)
            yield Session(port.join(opened), holder, opened)


@asynccontextmanager
async def open_driver(
    *,
    capacity: int | None = None,
    snapshot: Snapshot | None = None,
    order: ReuseOrder | None = None,
    mailbox_size: int = 1024,
    taps: Collection[Tap] = (),
    commit: Commit | None = None,
    journal: str | PathLike[str] | None = None,
    on_reboot: OnReboot = "keep",
) -> AsyncIterator[LocalPort]:
    """Run an allocator without a session, as `open_allocator` does; gives its driver's port.

    For who opens sessions on behalf of others, and is no holder: the port takes an `OpenSession`,
    `TakeStatistics` and `TakeSnapshot`, and `join` gives the port of a session. The holders of a
    snapshot or journal are suspended.
    """
    driven = _driven(
        None, capacity, snapshot, order, mailbox_size, taps, commit, journal, on_reboot
    )
    with one_task("open_driver"):
        async with driven as (port, _):
            yield port


@asynccontextmanager
async def _driven(
    holder: str | None,
    capacity: int | None,
    snapshot: Snapshot | None,
    order: ReuseOrder | None,
    mailbox_size: int,
    taps: Collection[Tap],
    commit: Commit | None,
    journal: str | PathLike[str] | None,
    on_reboot: OnReboot,
) -> AsyncIterator[tuple[LocalPort, SessionOpened | None]]:
    # With the port comes the session of a new allocator, if it has one.
    if type(mailbox_size) is not int or mailbox_size < 1:
        raise InvalidArgument.of("mailbox_size", mailbox_size, "a whole number of 1 or more")
    if commit is not None and not callable(commit):
        raise InvalidArgument.of("commit", commit, "an async callable")
    given = Taps[Decision](taps)
    by_reboot = _on_reboot(on_reboot)
    if journal is not None:
        for name, other in (("snapshot", snapshot), ("commit", commit)):
            if other is not None:
                raise InvalidArgument.of(name, other, "None with a journal")
    core = _core(capacity, holder, snapshot, order)
    if journal is None:
        keeper = keeper_everywhere(core) if commit is None else None
        goes_on = snapshot is not None
        async with _running(core, mailbox_size, given, commit, keeper, goes_on=goes_on) as port:
            yield port, _begin(port, core, goes_on=goes_on)
        return
    durable = Durable(_path(journal), by_reboot)
    orderly = False
    try:
        recovered = await durable.recover(core)
        core = recovered.core
        for argument, asked, found in (
            ("capacity", capacity, core.capacity),
            ("order", order, core.order),
        ):
            if asked is not None and asked != found:
                raise InvalidArgument.of(argument, asked, f"{found}, as the journal has it")
        goes_on = not recovered.is_new
        async with _running(core, mailbox_size, given, None, durable, goes_on=goes_on) as port:
            yield port, _begin(port, core, goes_on=goes_on)
        orderly = True
    finally:
        await durable.close(orderly=orderly)


def _core(
    capacity: int | None, holder: str | None, snapshot: Snapshot | None, order: ReuseOrder | None
) -> Allocator:
    if snapshot is None:
        return Allocator(
            1 << 20 if capacity is None else capacity,
            holder=holder,
            order=ReuseOrder.LOWEST if order is None else order,
            now=clock()(),
        )
    for argument, value in (("capacity", capacity), ("order", order)):
        if value is not None:
            raise InvalidArgument.of(argument, value, "None with a snapshot, which has it")
    return Allocator.restore(snapshot)


def _begin(port: LocalPort, core: Allocator, *, goes_on: bool) -> SessionOpened | None:
    if goes_on:
        # Whoever had sessions is gone with the process that they were in.
        port.tell(SuspendAll())
        return None
    return SessionOpened(core.session, resumed=False) if core.session else None


@asynccontextmanager
async def _running(
    core: Allocator,
    mailbox_size: int,
    taps: Taps[Decision],
    commit: Commit | None,
    keeper: Keeper | None,
    *,
    goes_on: bool,
) -> AsyncIterator[LocalPort]:
    taps.add(taps_everywhere(core))
    actor = AllocatorActor(core, mailbox_size, taps, commit, keeper, goes_on=goes_on)
    port = LocalPort(actor, DRIVER)
    raised: BaseException | None = None
    failure: BaseException | None = None
    try:
        async with create_task_group() as tasks:
            tasks.start_soon(actor.run, name="ioasid allocator")
            tasks.start_soon(actor.ring, name="ioasid deadlines")
            try:
                yield port
                actor.stop()
                await actor.ended
            except BaseException as error:
                raised = error
                actor.kill()
                raise
            finally:
                tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The task group is ours, not the caller's: an exception leaves as it was raised.
        failure = _what_failed(group, actor.crash, raised)
    finally:
        del raised
    if failure is not None:
        try:
            raise failure
        finally:
            del failure


def _path(journal: object) -> Path:
    path: object = None
    if isinstance(journal, str | PathLike):
        try:
            path = fspath(journal)
            fsencode(path)
        except Exception:  # noqa: BLE001 - a foreign path may raise anything
            path = None
    if type(path) is not str or not path or "\0" in path:
        raise InvalidArgument.of("journal", journal, "the path of a file")
    return Path(path)


def _on_reboot(value: object) -> OnReboot:
    if type(value) is str:
        if value == "keep":
            return "keep"
        if value == "forget":
            return "forget"
    raise InvalidArgument.of("on_reboot", value, "'keep' or 'forget'")


def _what_failed(
    group: BaseExceptionGroup[Any], crash: Exception | None, raised: BaseException | None
) -> BaseException:
    def follows(error: BaseException) -> bool:
        return error is crash or isinstance(error, AllocatorClosed)

    if crash is None:
        return raised if raised is not None and len(group.exceptions) == 1 else group
    # That everybody was told of a crash is no failure of its own.
    return crash if group.split(follows)[1] is None else group
