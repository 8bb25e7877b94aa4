"""The commands that look: what there is, who lags, and why an ID is not back in the pool."""

import sys
from typing import Any, Final

import click
from msgspec.structs import asdict

from ioasid.actors._looker import Looker
from ioasid.core import HolderRecord, IoasidError, Statistics
from ioasid.recorder import read
from ioasid.service._caller import FILE, IOASID, Caller, Careful, Command, set_of, tokens
from ioasid.service._recorded import Recorded
from ioasid.service._saying import fail, say, torn_ones_told
from ioasid.service._survey import pages

__all__: list[str] = []

OF_A_HOLDER: Final = ("holder", "session", "age", "referenced", "granted", "subscribed")


@click.command(cls=Command)
@click.pass_obj
def status(caller: Caller) -> None:
    """Show the figures, and which holders are down or lag behind.

    A holder is down if it crashed, or has not come back since the service was started. It keeps
    what it has until it comes back or is evicted.

    \b
    Examples:
      ioasid status
      ioasid status -o json | jq .free_pending
    """  # noqa: D301 - the \b is for Click, which keeps the lines below as they are

    async def ask(looker: Looker) -> tuple[Statistics, list[HolderRecord]]:
        figures = await looker.statistics()
        there = figures.suspended and not caller.is_json
        found = await pages(looker.list_holders, "holders") if there else []
        return figures, [each for each in found if each.session is None]

    figures, down = caller.look(ask)
    if caller.is_json:
        caller.show(figures)
        return
    caller.show(figures, "capacity", "reserved", "available", "sets", "groups")
    caller.show(figures, "active", "free_pending", "sessions", "suspended", "subscriptions")
    if down:
        caller.show(down, *OF_A_HOLDER)
    if figures.lagging:
        columns = ("holder", "scope", "priority", "attached", "queued", "folded", "oldest_age")
        caller.show(figures.lagging, *columns, "overdue")


@click.command(cls=Command)
@click.pass_obj
def sets(caller: Caller) -> None:
    """List the sets, with their quotas and use.

    \b
    Examples:
      ioasid sets
      ioasid sets -o json | jq '.[] | select(.allocated == .quota)'
    """  # noqa: D301 - for Click
    found = caller.look(lambda looker: pages(looker.list_sets, "sets"))
    caller.show(found, "sid", "token", "state", "quota", "allocated", "group")


@click.command("set", cls=Command)
@click.argument("name", shell_complete=tokens)
@click.pass_obj
def show_set(caller: Caller, name: str) -> None:
    """List the IDs of a set.

    NAME is the set's token, or its number as in '#3'.

    \b
    Examples:
      ioasid set vm-1
      ioasid set '#3'
    """  # noqa: D301 - for Click

    async def ask(looker: Looker) -> Any:
        return list(await looker.list_set((await set_of(looker, name)).sid))

    found = caller.look(ask)
    if caller.is_json:
        # By name: on a wire, where there are many of them, they are arrays.
        found = [asdict(each) for each in found]
    caller.show(found, "ioasid", "generation", "state", "spid", "data")


@click.command(cls=Command)
@click.pass_obj
def groups(caller: Caller) -> None:
    """List the groups, with their limits and use.

    \b
    Examples:
      ioasid groups
      ioasid groups -o json | jq '.[] | select(.used == .limit)'
    """  # noqa: D301 - for Click
    found = caller.look(lambda looker: pages(looker.list_groups, "groups"))
    caller.show(found, "name", "parent", "limit", "used")


@click.command(cls=Command)
@click.pass_obj
def holders(caller: Caller) -> None:
    """List the holders, connected or suspended.

    \b
    Examples:
      ioasid holders
      ioasid holders -o json | jq -r '.[] | select(.session == null) | .holder'
    """  # noqa: D301 - for Click
    found = caller.look(lambda looker: pages(looker.list_holders, "holders"))
    caller.show(found, *OF_A_HOLDER)


@click.command(cls=Command)
@click.argument("number", metavar="ID", type=IOASID)
@click.pass_obj
def find(caller: Caller, number: int) -> None:
    """Show whose an ID is, and who has it.

    \b
    Examples:
      ioasid find 17
      ioasid find 0x11 -o json | jq .references
    """  # noqa: D301 - for Click
    found = caller.look(lambda looker: looker.find(number))
    caller.show(found, "ioasid", "generation", "sid", "state", "spid", "references")


@click.command(cls=Command)
@click.argument("number", metavar="ID", type=IOASID)
@click.pass_obj
def why(caller: Caller, number: int) -> None:
    """Say why an ID is not back in the pool, and who keeps it.

    \b
    Examples:
      ioasid why 17
      ioasid why 17 -o json | jq '.references[].holder'
    """  # noqa: D301 - for Click
    found = caller.look(lambda looker: looker.explain(number))
    if caller.is_json:
        caller.show(found)
    else:
        say(found.text)


@click.command(cls=Careful)
@click.option("--recording", type=FILE, help="Show what `serve --record` wrote here.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.pass_obj
def top(caller: Caller, recording: str | None, every: float) -> None:
    """Show live what waits for whom, and who is down.

    It also shows how full sets and groups are, and keeps no ID from the pool. Its keys are shown
    below the tables. It needs a terminal, and the extra `top`.

    \b
    Examples:
      ioasid top
      ioasid top --recording serve.jsonl
    """  # noqa: D301 - for Click
    from ioasid.service._top import Top

    try:
        with torn_ones_told():
            source = caller.looking if recording is None else Recorded(read(recording))
    except (IoasidError, OSError) as error:
        fail(error)
    if not sys.stdout.isatty():
        raise click.UsageError(
            "it needs a terminal; for a script, there is `ioasid status -o json`"
        )
    Top(source, caller.connect, every=every).run()


COMMANDS = (status, sets, show_set, groups, holders, find, why, top)
