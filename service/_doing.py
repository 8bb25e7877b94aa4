"""The commands that do something: groups, sets and IDs are made and freed, held and evicted."""

import signal
from functools import partial
from typing import Any, Final

import click
from anyio import move_on_after, open_signal_receiver

from ioasid.actors import Session
from ioasid.core import TokenType
from ioasid.service._caller import (
    Caller,
    Command,
    Number,
    group_names,
    holder_names,
    is_number,
    named,
    say,
    set_of,
    tokens,
)
from ioasid.service._eviction import evicted, question_of_eviction, said_of_eviction
from ioasid.service._plain import plain

__all__: list[str] = []

ASKED_EVERY: Final = 1.0
"""Seconds between two looks whether the service is still there."""
OF_A_GROUP: Final = ("name", "parent", "limit", "used")
OF_A_SET: Final = ("sid", "token", "state", "quota", "allocated", "group")


@click.command("alloc-group", cls=Command)
@click.argument("name")
@click.argument("limit", type=int)
@click.option(
    "--parent", shell_complete=group_names, help="Take the limit from that of this group."
)
@click.pass_obj
def alloc_group(caller: Caller, name: str, limit: int, parent: str | None) -> None:
    """Create a group: the sets and groups in it share LIMIT IDs.

    For operators only, as is changing and freeing it.

    \b
    Examples:
      ioasid alloc-group tenant-a 64
      ioasid alloc-group team-1 16 --parent tenant-a
      ioasid alloc-set vm-1 8 --group team-1
    """  # noqa: D301 - the \b is for Click, which keeps the lines below as they are
    found = caller.run(lambda session: session.alloc_group(name, limit, parent=parent))
    caller.show(found, *OF_A_GROUP)


@click.command("adjust-group", cls=Command)
@click.argument("name", shell_complete=group_names)
@click.argument("limit", type=int)
@click.pass_obj
def adjust_group(caller: Caller, name: str, limit: int) -> None:
    """Change the limit of a group, to no less than what is used of it.

    \b
    Example:
      ioasid adjust-group tenant-a 128
    """  # noqa: D301 - for Click
    caller.show(caller.run(lambda session: session.adjust_group(name, limit)), *OF_A_GROUP)


@click.command("free-group", cls=Command)
@click.argument("name", shell_complete=group_names)
@click.pass_obj
def free_group(caller: Caller, name: str) -> None:
    """Free a group in which no set and no group is left.

    What it could promise goes back to its parent, or to what is available.

    \b
    Example:
      ioasid free-group team-1
    """  # noqa: D301 - for Click
    caller.run(lambda session: session.free_group(name))
    if caller.is_json:
        caller.show({"freed": name})
    else:
        say(f"{name} is freed")


@click.command("alloc-set", cls=Command)
@click.argument("token")
@click.argument("quota", type=int)
@click.option("--group", shell_complete=group_names, help="Take the quota from this group's limit.")
@click.pass_obj
def alloc_set(caller: Caller, token: str, quota: int, group: str | None) -> None:
    """Create a set of at most QUOTA IDs, named by TOKEN.

    TOKEN is any text but one such as `#3`, which names a set by its number.

    \b
    Examples:
      ioasid alloc-set vm-1 8
      ioasid alloc-set vm-1 8 --group tenant-a
    """  # noqa: D301 - for Click
    if is_number(token):
        raise click.BadParameter(
            f"{token!r} names a set by its number; choose another token", param_hint="'TOKEN'"
        )
    found = caller.run(lambda session: session.alloc_set(token, quota, TokenType.MM, group=group))
    caller.show(found, *OF_A_SET)


@click.command("adjust-set", cls=Command)
@click.argument("name", shell_complete=tokens)
@click.argument("quota", type=int)
@click.pass_obj
def adjust_set(caller: Caller, name: str, quota: int) -> None:
    """Change the quota of a set, to no less than what is allocated of it.

    NAME is its token, or its number as in `#3`.

    \b
    Example:
      ioasid adjust-set vm-1 16
    """  # noqa: D301 - for Click

    async def ask(session: Session) -> Any:
        return await session.adjust_set((await set_of(session, name)).sid, quota)

    caller.show(caller.run(ask), *OF_A_SET)


@click.command("free-set", cls=Command)
@click.argument("name", shell_complete=tokens)
@click.option("--keep", is_flag=True, help="Free its IDs, and keep the set.")
@click.option("--wait", is_flag=True, help="Come back when all of it is in the pool again.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def free_set(caller: Caller, name: str, keep: bool, wait: bool, yes: bool) -> None:
    """Free all IDs of a set, and the set with them.

    NAME is its token, or its number as in `#3`. What still has one of the IDs keeps it in
    quarantine, and the set there is until the last one is back in the pool.

    \b
    Examples:
      ioasid free-set vm-1
      ioasid free-set vm-1 --yes --wait
    """  # noqa: D301 - for Click

    async def ask(session: Session) -> bool:
        return await session.free_set(found.sid, destroy=not keep, wait=wait)

    found = caller.look(lambda looker: set_of(looker, name))
    if not yes:
        what = f"{found.allocated} ID{'s' * (found.allocated != 1)} of {named(found)}"
        click.confirm(f"Free {plain(what)}{'' if keep else ', and the set'}?", abort=True)
    reclaimed = caller.run(ask)
    if caller.is_json:
        caller.show({"sid": found.sid, "token": found.token, "reclaimed": reclaimed})
    else:
        where = "reclaimed" if reclaimed else f"in quarantine; `ioasid set '{name}'` lists it"
        say(f"{named(found)}: {where}")


@click.command(cls=Command)
@click.argument("name", shell_complete=tokens)
@click.option("--min", "low", type=Number(), default=1, show_default=True, help="The least number.")
@click.option(
    "--max", "high", type=Number(), help="The greatest number, for a device with few bits."
)
@click.pass_obj
def alloc(caller: Caller, name: str, low: int, high: int | None) -> None:
    """Allocate an ID in a set; says which.

    NAME is its token, or its number as in `#3`.

    \b
    Examples:
      ioasid alloc vm-1
      ioasid alloc vm-1 --max 255
    """  # noqa: D301 - for Click

    async def ask(session: Session) -> Any:
        sid = (await set_of(session, name)).sid
        number = await session.alloc(sid, min=low, max=high)
        return await session.find(number)

    found = caller.run(ask)
    if caller.is_json:
        caller.show(found)
    else:
        click.echo(found.ioasid)


@click.command(cls=Command)
@click.argument("number", metavar="ID", type=Number())
@click.option("--generation", type=int, help="Only this life of the ID.")
@click.option("--wait", is_flag=True, help="Come back when it is in the pool again.")
@click.pass_obj
def free(caller: Caller, number: int, generation: int | None, wait: bool) -> None:
    """Free an ID; says whether it is back in the pool already.

    \b
    Examples:
      ioasid free 17
      ioasid free 17 --generation 4 --wait
    """  # noqa: D301 - for Click
    call = partial(Session.free, ioasid=number, generation=generation, wait=wait)
    reclaimed = caller.run(call)
    if caller.is_json:
        caller.show({"reclaimed": reclaimed})
    else:
        click.echo("reclaimed" if reclaimed else f"in quarantine; `ioasid why {number}` says why")


@click.command(cls=Command)
@click.argument("number", metavar="ID", type=Number())
@click.pass_obj
def hold(caller: Caller, number: int) -> None:
    """Hold an ID until Ctrl-C, so that it is not reused meanwhile.

    Killed, it is as any client that crashed: its holder is suspended and the ID stays, until the
    holder is evicted, or comes back. If the service ends, so does it, with 5.

    \b
    Examples:
      ioasid hold 17
      ioasid --holder me hold 17
    """  # noqa: D301 - for Click

    async def ask(session: Session) -> None:
        with open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            await session.get(number)
            if caller.is_json:
                click.echo(f'{{"holder":"{session.name}","ioasid":{number}}}')
            else:
                say(f"{session.name} holds {number}; Ctrl-C lets go")
            while True:
                with move_on_after(ASKED_EVERY) as scope:
                    await anext(signals)
                if not scope.cancelled_caught:
                    break
                # Raises if the service is gone; nothing else would tell.
                await session.find(number)

    caller.run(ask)


@click.command(cls=Command)
@click.argument("name", shell_complete=holder_names)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def evict(caller: Caller, name: str, yes: bool) -> None:
    """Declare a holder dead.

    What it was told counts as acknowledged, its references are dropped. Only when nothing of it can
    reach an ID any more: what it programmed may be reused at once. A holder that is live, as
    `ioasid status` says, is better stopped first: the question names its session. Says which IDs
    came back to the pool, and which still wait for somebody else.

    \b
    Examples:
      ioasid evict vdcm:dsa0
      ioasid evict vdcm:dsa0 --yes -o json
    """  # noqa: D301 - for Click
    if not yes:
        question = caller.look(lambda looker: question_of_eviction(looker, name))
        click.confirm(question, abort=True)

    found = caller.run(lambda session: evicted(session, name))
    if caller.is_json:
        caller.show(found)
    else:
        for line in said_of_eviction(found):
            say(line)


COMMANDS = (
    *(alloc_group, adjust_group, free_group),
    *(alloc_set, adjust_set, free_set),
    *(alloc, free, hold, evict),
)
