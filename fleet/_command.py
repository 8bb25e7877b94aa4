"""`ioasid fleet`: where VMs run, moving them, and what tenants may have on all hosts.

It ends with the status that any command of `ioasid` ends with; 5 says that the store, or a host
that is needed, does not answer. What was begun stands then, for `finish` or `abort`.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import anyio
import click
import msgspec
from attrs import frozen

from ioasid.core import IoasidError
from ioasid.fleet._coordinator import Coordinator, decode_record
from ioasid.fleet._errors import (
    HistoryLost,
    HostUnreachable,
    StoreForbidden,
    StoreFull,
    StoreUnavailable,
    UnknownHost,
    UnknownTenant,
)
from ioasid.fleet._etcd import open_store
from ioasid.fleet._hosts import HostRecord, alive_hosts
from ioasid.fleet._line import StoreLine
from ioasid.fleet._member import member
from ioasid.fleet._protocol import Phase, VmRecord
from ioasid.fleet._store import Changed, Store, host_name
from ioasid.fleet._tenants import Tenants
from ioasid.service._caller import COUNT, Caller, Command, Group
from ioasid.service._command import main as run
from ioasid.service._plain import plain
from ioasid.service._saying import NO_SERVICE, REFUSED, fail, say

__all__: list[str] = []

T = TypeVar("T")

DEFAULT: Final = "http://127.0.0.1:2379"


@frozen
class _Fleet:
    """How a command reaches the store, and how it shows what it finds."""

    url: str
    caller: Caller

    def run(self, ask: Callable[[Store], Awaitable[T]]) -> T:
        """Run one command."""
        try:
            return anyio.run(self._run, ask)
        except (StoreForbidden, StoreFull) as error:
            fail(error)
        except (StoreUnavailable, HostUnreachable) as error:
            say(f"ioasid: {error}", err=True)
            sys.exit(NO_SERVICE)
        except HistoryLost as error:
            lost = f"the store has dropped the changes since revision {error.revision}"
            say(f"ioasid: {error.code}: {lost}; begin `ioasid fleet watch` again", err=True)
            sys.exit(REFUSED)
        except (IoasidError, OSError) as error:
            fail(error)

    async def _run(self, ask: Callable[[Store], Awaitable[T]]) -> T:
        async with open_store(self.url) as store:
            return await ask(store)

    def coordinate(self, ask: Callable[[Coordinator], Awaitable[T]]) -> T:
        """Run one command of a coordinator."""

        async def run(store: Store) -> T:
            return await ask(Coordinator(store, partial(StoreLine, store)))

        return self.run(run)

    def show(self, found: Any, *columns: str) -> None:
        """Show one record or a list of them."""
        self.caller.show(found, *columns)


@click.group(cls=Group)
@click.option(
    "--fleet",
    "url",
    default=DEFAULT,
    envvar="IOASID_FLEET",
    show_default=True,
    help="The etcd where the fleet keeps its records; also $IOASID_FLEET.",
)
@click.pass_context
def fleet(context: click.Context, url: str) -> None:
    """See where VMs run on many hosts, and move them.

    It limits what tenants have on all hosts, too. A move that stops halfway stays as it is, for
    `finish` or `abort`. The commands end with the same statuses as all others; 5 says that the
    store, or a host that is needed, does not answer.

    \b
    Examples:
      ioasid fleet --fleet http://10.0.0.5:2379 hosts
      ioasid fleet move vm-1 rack1-b
    """  # noqa: D301 - the \b is for Click, which keeps the lines below as they are
    context.obj = _Fleet(url, context.obj)


class _Host(msgspec.Struct, frozen=True):
    host: str
    alive: bool
    vms: int
    capacity: int | None
    available: int | None
    active: int | None


@fleet.command(cls=Command)
@click.pass_obj
def hosts(fleet: _Fleet) -> None:
    """List the hosts, alive or not.

    A host where a VM is on record is listed even if it is not alive. That says no more than that
    its agent does not answer: what it ran may still run.

    \b
    Examples:
      ioasid fleet hosts
      ioasid -o json fleet hosts | jq -r '.[] | select(.alive | not) | .host'
    """  # noqa: D301 - for Click

    async def ask(store: Store) -> list[_Host]:
        alive = {each.host: each for each in await alive_hosts(store)}
        count = dict.fromkeys(alive, 0)
        for record in await _records(store):
            count[record.host] = count.get(record.host, 0) + 1
        found = []
        for name in sorted(count):
            each = alive.get(name, HostRecord(name))
            figures = each.capacity, each.available, each.active
            found.append(_Host(name, name in alive, count[name], *figures))
        return found

    fleet.show(fleet.run(ask), "host", "alive", "vms", "capacity", "available", "active")


@fleet.command(cls=Command)
@click.argument("vm")
@click.pass_obj
def where(fleet: _Fleet, vm: str) -> None:
    """Show where a VM runs, or how far its move is.

    \b
    Example:
      ioasid fleet where vm-1
    """  # noqa: D301 - for Click
    fleet.show(fleet.coordinate(lambda each: each.where(vm)), *COLUMNS)


COLUMNS: Final = ("vm", "phase", "host", "other", "epoch", "quota", "tenant", "reason")


@fleet.command(cls=Command)
@click.pass_obj
def moves(fleet: _Fleet) -> None:
    """List the VMs that are being moved, and how far each is.

    \b
    Example:
      ioasid fleet moves
    """  # noqa: D301 - for Click

    async def ask(store: Store) -> list[VmRecord]:
        return [each for each in await _records(store) if each.phase is not Phase.OWNED]

    fleet.show(fleet.run(ask), *COLUMNS)


@fleet.command(cls=Command)
@click.argument("vm")
@click.argument("host")
@click.pass_obj
def move(fleet: _Fleet, vm: str, host: str) -> None:
    """Move a VM to another host, and wait until it runs there.

    The VM is stopped first, and the move waits for what a device has yet to complete. If this is
    interrupted, `finish` goes on with the move and `abort` takes it back, from any host.

    \b
    Example:
      ioasid fleet move vm-1 rack1-b
    """  # noqa: D301 - for Click

    async def ask(coordinator: Coordinator) -> VmRecord:
        await coordinator.where(vm)
        alive = [each.host for each in await alive_hosts(coordinator.store)]
        if host_name(host) not in alive:
            if host in {each.host for each in await _records(coordinator.store)}:
                raise HostUnreachable(host)
            raise UnknownHost(host, ", ".join(alive) or "none")
        await coordinator.move(vm, host)
        return await coordinator.where(vm)

    fleet.show(fleet.coordinate(ask), *COLUMNS)


@fleet.command(cls=Command)
@click.argument("vm")
@click.pass_obj
def finish(fleet: _Fleet, vm: str) -> None:
    """Go on with the move of a VM, whoever began it.

    \b
    Example:
      ioasid fleet finish vm-1
    """  # noqa: D301 - for Click
    fleet.show(fleet.coordinate(lambda each: each.finish(vm)), *COLUMNS)


@fleet.command(cls=Command)
@click.argument("vm")
@click.option("--reason", default="told to", show_default=True, help="Why, for the VM's record.")
@click.pass_obj
def abort(fleet: _Fleet, vm: str, reason: str) -> None:
    """Take the move of a VM back.

    A move that is decided already is finished instead.

    \b
    Examples:
      ioasid fleet abort vm-1
      ioasid fleet abort vm-1 --reason "rack1-b is repaired first"
    """  # noqa: D301 - for Click
    fleet.show(fleet.coordinate(lambda each: each.abort(vm, reason)), *COLUMNS)


class _Limit(click.ParamType[int | str]):
    """A limit: a number, or the word for none."""

    name = "limit"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Return the number, or the word; fails with a usage error."""
        return "none" if value == "none" else COUNT.convert(value, param, ctx)


@fleet.command(cls=Command)
@click.argument("tenant", required=False)
@click.argument("limit", required=False, type=_Limit())
@click.pass_obj
def limits(fleet: _Fleet, tenant: str | None, limit: int | str | None) -> None:
    """Show or set what tenants may have on all hosts.

    LIMIT is a number of IDs, or `none`. A tenant is a group that is in no other group. A VM counts
    with its quota, and only once while it moves; what was freed counts for a few seconds more.

    \b
    Examples:
      ioasid fleet limits
      ioasid fleet limits acme 4096
      ioasid fleet limits acme none
    """  # noqa: D301 - for Click

    async def ask(store: Store) -> Any:
        tenants = Tenants(store)
        if tenant is None:
            return await tenants.all()
        if limit is None:
            found = await tenants.look(tenant)
            if found.limit is None and not found.used:
                raise UnknownTenant(tenant)
            return found
        return await tenants.limit(tenant, limit if isinstance(limit, int) else None)

    fleet.show(fleet.run(ask), "tenant", "limit", "used")


@fleet.command(cls=Command)
@click.option("--count", type=click.IntRange(min=1), help="End after this many.")
@click.pass_obj
def watch(fleet: _Fleet, count: int | None) -> None:
    """Show where VMs are, and then what happens to VMs and hosts.

    It goes on when the store is restarted, and leaves nothing out. Ctrl-C ends it, with 0.

    \b
    Examples:
      ioasid fleet watch
      ioasid -o json fleet watch | jq -c '[.vm, .phase]'
    """  # noqa: D301 - for Click

    async def ask(store: Store) -> None:
        left = count
        found, revision = await store.get("vm/")
        async with store.watch("", revision + 1) as changes:
            there = [Changed(key, each.value, each.revision) for key, each in found.items()]
            async for change in _chained(there, changes):
                shown = _shown(change.key, change.value)
                if shown is None:
                    continue
                if fleet.caller.is_json:
                    click.echo(msgspec.json.encode({"revision": change.revision, **shown}))
                else:
                    click.echo(f"{change.revision:>8}  {plain(_said(**shown))}")
                if left is not None:
                    left -= 1
                    if not left:
                        return

    with suppress(KeyboardInterrupt):
        fleet.run(ask)


async def _chained(
    first: Iterable[Changed], then: AsyncIterator[Changed]
) -> AsyncIterator[Changed]:
    for each in first:
        yield each
    async for each in then:
        yield each


def _shown(key: str, value: bytes | None) -> dict[str, Any] | None:
    kind, _, name = key.partition("/")
    match kind, value:
        case "vm", None:
            return {"vm": name, "phase": "GONE"}
        case "vm", bytes() as found:
            record = decode_record(found, key)
            return {
                "vm": name,
                "phase": record.phase,
                "host": record.host,
                "other": record.other,
                "reason": record.reason,
            }
        case "host", None:
            return {"host": name, "alive": False}
        case _:
            return None


def _said(
    vm: str = "",
    phase: str = "",
    host: str | None = None,
    other: str | None = None,
    reason: str | None = None,
    alive: bool = True,
) -> str:
    if not alive:
        return f"host {host} is not alive"
    facts = [("host", host), ("other", other), ("reason", reason)]
    told = ", ".join(f"{name} {fact}" for name, fact in facts if fact)
    return f"{vm}  {phase:<7}  {told}".rstrip()


async def _records(store: Store) -> list[VmRecord]:
    found, _ = await store.get("vm/")
    return [decode_record(found[key].value, key) for key in sorted(found)]


def main() -> None:
    """Run the command line of the service, with what a fleet adds to it."""
    run(fleet, member=member)
