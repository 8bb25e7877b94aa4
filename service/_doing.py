"""The commands that do something: groups, sets and IDs are made and freed, held and evicted."""

import signal
import sys
from functools import partial
from typing import Any, Final

import click
import msgspec
from anyio import CancelScope, open_signal_receiver

from ioasid.actors import Session
from ioasid.actors._session import ending_of
from ioasid.core import SessionEnded, TokenType
from ioasid.core._plurals import counted
from ioasid.service._caller import (
    COUNT,
    IOASID,
    Caller,
    Command,
    Number,
    group_names,
    holder_names,
    is_number,
    set_of,
    tokens,
)
from ioasid.service._eviction import evicted, said_of_eviction, warning_of_eviction
from ioasid.service._saying import REFUSED, confirm, named, say

__all__: list[str] = []

OF_A_GROUP: Final = ("name", "parent", "limit", "used")
OF_A_SET: Final = ("sid", "token", "state", "quota", "allocated", "group")


@click.command("alloc-group", cls=Command)
@click.argument("name")
@click.argument("limit", type=COUNT)
@click.option(
    "--parent", metavar="GROUP", shell_complete=group_names, help="Make it in this group."
)
@click.pass_obj
def alloc_group(caller: Caller, name: str, limit: int, parent: str | None) -> None:
    """Create a group, whose sets and groups share LIMIT IDs.

    Only an operator may create, change or free one. A group in another takes its limit from there.

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
@click.argument("limit", type=COUNT)
@click.pass_obj
def adjust_group(caller: Caller, name: str, limit: int) -> None:
    """Change the limit of a group.

    It can't be less than is used of it.

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

    Its limit goes back to the group that it is in, or to what is available to all.

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
@click.argument("quota", type=COUNT)
@click.option("--group", metavar="GROUP", shell_complete=group_names, help="Make it in this group.")
@click.pass_obj
def alloc_set(caller: Caller, token: str, quota: int, group: str | None) -> None:
    """Create a set that may have QUOTA IDs, and is named by TOKEN.

    TOKEN is any text, but nothing like '#3', which names a set by its number.

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
@click.argument("quota", type=COUNT)
@click.pass_obj
def adjust_set(caller: Caller, name: str, quota: int) -> None:
    """Change the quota of a set.

    NAME is the set's token, or its number as in '#3'. QUOTA can't be less than it has IDs.

    \b
    Example:
      ioasid adjust-set vm-1 16
    """  # noqa: D301 - for Click

    async def ask(session: Session) -> Any:
        return await session.adjust_set((await set_of(session, name)).sid, quota)

    caller.show(caller.run(ask), *OF_A_SET)


@click.command("free-set", cls=Command)
@click.argument("name", shell_complete=tokens)
@click.option("--keep", is_flag=True, help="Free the IDs, but keep the set.")
@click.option("--wait", is_flag=True, help="Wait until all of it is back in the pool.")
@click.option("-y", "--yes", is_flag=True, help="Do it without asking.")
@click.pass_obj
def free_set(caller: Caller, name: str, keep: bool, wait: bool, yes: bool) -> None:
    """Free all IDs of a set, and the set.

    NAME is the set's token, or its number as in '#3'. An ID that somebody still has stays in
    quarantine, and the set stays until its last ID is back in the pool.

    \b
    Examples:
      ioasid free-set vm-1
      ioasid free-set vm-1 --yes --wait
    """  # noqa: D301 - for Click

    async def ask(session: Session) -> bool:
        return await session.free_set(found.sid, destroy=not keep, wait=wait)

    found = caller.look(lambda looker: set_of(looker, name))
    if not yes:
        what = f"{counted(found.allocated, 'ID')} of {named(found)}"
        confirm(f"Free {what}{'' if keep else ', and the set'}?")
    reclaimed = caller.run(ask)
    if caller.is_json:
        caller.show({"sid": found.sid, "token": found.token, "reclaimed": reclaimed})
    else:
        where = "reclaimed" if reclaimed else f"in quarantine; `ioasid set '{name}'` lists it"
        say(f"{named(found)}: {where}")


@click.command(cls=Command)
@click.argument("name", shell_complete=tokens)
@click.option("--min", "low", type=IOASID, default=1, show_default=True, help="The lowest to take.")
@click.option(
    "--max",
    "high",
    type=IOASID,
    help="The highest to take, for a device with few bits.",
)
@click.pass_obj
def alloc(caller: Caller, name: str, low: int, high: int | None) -> None:
    """Allocate an ID in a set, and print it.

    NAME is the set's token, or its number as in '#3'.

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
@click.argument("number", metavar="ID", type=IOASID)
@click.option(
    "--generation",
    type=Number(0, 2**63 - 1),
    help="Only this life of the ID; `ioasid find` shows it.",
)
@click.option("--wait", is_flag=True, help="Wait until the ID is back in the pool.")
@click.pass_obj
def free(caller: Caller, number: int, generation: int | None, wait: bool) -> None:
    """Free an ID, and say whether it is already back in the pool.

    One that somebody still has stays in quarantine until they are done with it.

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
@click.argument("number", metavar="ID", type=IOASID)
@click.pass_obj
def hold(caller: Caller, number: int) -> None:
    """Hold an ID until Ctrl-C, so that it is not reused meanwhile.

    If this is killed, its holder counts as crashed, as that of any client would: it keeps the ID
    until it is evicted or comes back, which it does by holding the ID again under the same name. If
    its holder is evicted while this runs, this ends at once, with 1; if the service ends, with 5.

    \b
    Examples:
      ioasid hold 17
      ioasid --holder me hold 17
    """  # noqa: D301 - for Click

    async def ask(session: Session) -> None:
        ending = ending_of(session)
        with open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            if number not in dict(session.opened.references):
                await session.get(number)
            if caller.is_json:
                held = {"holder": session.name, "ioasid": number}
                click.echo(msgspec.json.encode(held).decode())
            else:
                say(f"{session.name} holds {number}; Ctrl-C lets go")
            with CancelScope() as waiting:
                forget = ending.watch(waiting.cancel)
                await anext(signals)
            forget()
        try:
            ending.check()
        except SessionEnded:
            say(f"ioasid: {session.name} was evicted, and no longer holds {number}", err=True)
            sys.exit(REFUSED)

    caller.run(ask)


@click.command(cls=Command)
@click.argument("name", shell_complete=holder_names)
@click.option("-y", "--yes", is_flag=True, help="Do it without asking.")
@click.pass_obj
def evict(caller: Caller, name: str, yes: bool) -> None:
    """Declare a holder dead: nothing waits for it any more.

    Do this only when no hardware uses an ID for it any more: what it has may be given to others at
    once. Stop a holder that is still connected first, if you can; the question says if it is. Shows
    which IDs are back in the pool, and which still wait for somebody else.

    \b
    Examples:
      ioasid evict vdcm:dsa0
      ioasid evict vdcm:dsa0 --yes -o json
    """  # noqa: D301 - for Click
    if not yes:
        warning = caller.look(lambda looker: warning_of_eviction(looker, name))
        confirm(f"{warning} Evict it?")

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
