"""What the commands share: how they reach the service, show what they find, and end.

A command ends with 0 when it did what it says; with 1 when the service refused, 2 when it was
called wrongly, 3 when what it names does not exist, 4 when it is not permitted, 5 when no service
answers, and 130 when Ctrl-C ended it before.
"""

import errno
import math
import os
import re
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Final, NoReturn, TypeVar

import anyio
import click
import msgspec
from click.shell_completion import CompletionItem
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ioasid.actors import Session
from ioasid.actors._looker import Looker
from ioasid.core import (
    AllocatorClosed,
    GroupExhausted,
    InvalidArgument,
    InvalidRequest,
    IoasidError,
    NotCommitted,
    QuotaExceeded,
    SetRecord,
    UnknownGroup,
    UnknownSet,
    UnknownToken,
)
from ioasid.service._connect import DEFAULT_PATH, connect_allocator, looking
from ioasid.service._errors import ConnectionFailed, PermissionDenied, RefusedByServer
from ioasid.service._gate import Member
from ioasid.service._plain import fitted, plain
from ioasid.service._survey import pages

__all__: list[str] = []

S = TypeVar("S")
T = TypeVar("T")

REFUSED: Final = 1
CALLED_WRONGLY: Final = 2
NOT_FOUND: Final = 3
NOT_PERMITTED: Final = 4
NO_SERVICE: Final = 5
OUTPUT_LOST: Final = 6
INTERRUPTED: Final = 128 + signal.SIGINT

JSON: Final = "ioasid.json"
"""Where a context has whether JSON was chosen, before a command's name or after it."""
ANSWERS_WITHIN: Final = 10.0
"""Seconds that a service has to let one in; what is asked in it may take as long as it does."""
COMPLETED_WITHIN: Final = 1.0
"""Seconds that a shell waits for names."""


class Caller:
    """How a command reaches the service, and how it shows what it finds."""

    def __init__(
        self,
        path: str | None,
        holder: str | None,
        token: str | None,
        member: Member | None = None,
    ) -> None:
        self.path = path
        self.member = member
        """What makes a service one of a fleet's, if a package above brings that."""
        self._holder = holder or f"ioasid:{os.getpid()}"
        self.token = token

    @property
    def is_json(self) -> bool:
        """Whether what is found is shown as JSON."""
        return bool(click.get_current_context().meta.get(JSON))

    def run(self, ask: Callable[[Session], Awaitable[T]], *, interrupted: int = INTERRUPTED) -> T:
        """Run one command's requests in a session of their own.

        One that Ctrl-C ends has the status `interrupted`.
        """
        return _run(partial(self._ask, self.connect(), ask), interrupted)

    def look(self, ask: Callable[[Looker], Awaitable[T]]) -> T:
        """Run the requests of a command that only looks, without a session."""
        return _run(partial(self.ask_looking, ask), INTERRUPTED)

    async def ask_looking(self, ask: Callable[[Looker], Awaitable[T]]) -> T:
        """The same, in an event loop that runs; raises what the requests are refused with."""
        return await self._ask(self.looking(), ask)

    async def _ask(
        self, connection: AbstractAsyncContextManager[S], ask: Callable[[S], Awaitable[T]]
    ) -> T:
        with anyio.move_on_after(ANSWERS_WITHIN) as scope:
            async with connection as asked:
                scope.deadline = math.inf
                return await ask(asked)
        raise ConnectionFailed(
            self.path or DEFAULT_PATH, f"it is there, and said nothing for {ANSWERS_WITHIN:.0f} s"
        )

    def connect(self) -> AbstractAsyncContextManager[Session]:
        """Return the session to enter; one that breaks is not opened again."""
        return connect_allocator(
            self.path or DEFAULT_PATH, holder=self._holder, token=self.token, reconnect_within=0
        )

    def looking(self) -> AbstractAsyncContextManager[Looker]:
        """Return what to enter for whoever only looks."""
        return looking(self.path or DEFAULT_PATH, self.token)

    def show(self, found: Any, *columns: str) -> None:
        """Show one record or a list of them; `columns` are the fields of a table."""
        if self.is_json:
            click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
            return
        rows: Iterable[Any] = found if isinstance(found, list | tuple) else [found]
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in columns:
            unit = ", s" if name.endswith("age") else ""
            table.add_column(name.replace("_", " ") + unit, overflow="fold")
        for row in rows:
            cells = (_cell(name, getattr(row, name)) for name in columns)
            # As text: in a string, Rich takes [...] for markup.
            table.add_row(*(Text(plain(each)) for each in cells))
        Console(soft_wrap=not sys.stdout.isatty()).print(table)


def _run(work: Callable[[], Awaitable[T]], interrupted: int) -> T:
    try:
        return anyio.run(work)
    except IoasidError as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(interrupted)


def _cell(name: str, value: Any) -> str:
    match value:
        case None:
            return "suspended" if name == "session" else "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3f}"
        case dict():
            return ", ".join(f"{name}: {count}" for name, count in value.items()) or "-"
        case tuple():
            return str(len(value))
        case _:
            return str(value)


class Command(click.Command):
    """A command that shows something: `-o` may come before its name, or after."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(output())


def output() -> click.Option:
    """Return the option that chooses JSON."""
    return click.Option(
        ["-o", "--output"],
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        expose_value=False,
        callback=_choose,
        help="A table, or JSON for scripts.",
    )


def _choose(context: click.Context, _: click.Parameter, value: str) -> None:
    if value == "json":
        context.meta[JSON] = True


class Number(click.ParamType[int]):
    """A number, in decimal or, as kernel logs have it, with 0x in front."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; fails with a usage error."""
        try:
            # A default is a number already.
            text = str(value)
            return int(text, 16 if text.lower().startswith("0x") else 10)
        except ValueError:
            self.fail(f"{value!r} is no number, such as 17 or 0x11", param, ctx)


def say(text: str, *, err: bool = False) -> None:
    """Print a text, on a terminal in lines that fit it."""
    text = plain(text)
    if (sys.stderr if err else sys.stdout).isatty():
        text = fitted(text, shutil.get_terminal_size().columns)
    click.echo(text, err=err)


_MADE: Final = "`ioasid alloc-set` makes one, `ioasid sets` lists those that there are"
TO_TYPE: Final[dict[type[IoasidError], str]] = {
    UnknownSet: _MADE,
    UnknownToken: _MADE,
    UnknownGroup: "`ioasid alloc-group` makes it, `ioasid groups` lists those that there are",
    GroupExhausted: "free or shrink what is in it, or `ioasid adjust-group` it",
    QuotaExceeded: "free some and wait until they are back, or `ioasid adjust-set` it",
}
"""What to do at a shell, where an error says behind its last semicolon what to call."""


_ASKED: Final = "or ask an operator, where the policy gives you no group"
_MADE_BY: Final = (
    "`ioasid sets` lists yours; `ioasid alloc-set` with --group makes it in the group that the "
    f"policy gives you, {_ASKED}"
)
TO_TYPE_BY_OTHERS: Final[dict[type[IoasidError], str]] = {
    UnknownSet: _MADE_BY,
    UnknownToken: _MADE_BY,
    UnknownGroup: "ask an operator to make it",
    GroupExhausted: "free or shrink what is in it, or ask an operator for more",
    QuotaExceeded: f"free some and wait until they are back, `ioasid adjust-set` it, {_ASKED}",
}
"""The same for who came under a name or with a token, as everybody has to who is no operator."""


def said(error: IoasidError) -> str:
    """Return what an error says, with what to type in place of what to call."""
    context = click.get_current_context(silent=True)
    given = {} if context is None else context.find_root().params
    is_other = given.get("holder") is not None or given.get("token") is not None
    advice = (TO_TYPE_BY_OTHERS if is_other else TO_TYPE).get(type(error))
    text = str(error)
    if isinstance(error, NotCommitted):
        return f"{text}; what only looks goes on, `ioasid watch` does not, for it subscribes"
    if isinstance(error, PermissionDenied) and context is not None:
        name = error.what.partition(" ")[0]
        if name == "send":
            text = text.replace(error.what, f"`{context.command_path}`", 1)
        elif name == "subscribe":
            advice = f"give the token of its set, as in `{context.command_path} --token vm-1`"
        elif name == "be":
            advice = "give one that begins as the policy has it, with `ioasid --holder`"
    return text if advice is None else f"{text.rpartition('; ')[0]}; {advice}"


def fail(error: IoasidError) -> NoReturn:
    """Say what went wrong, and end with the status that says of which kind it is."""
    code = error.errno
    if isinstance(error, RefusedByServer):
        # By a package above this one: what it says is all that is to be known.
        code = getattr(errno, error.name, code)
        say(f"ioasid: {error.name}: {error.reason}", err=True)
    else:
        say(f"ioasid: {said(error)}", err=True)
    if isinstance(error, ConnectionFailed | AllocatorClosed):
        sys.exit(NO_SERVICE)
    kinds = {
        errno.ENOENT: NOT_FOUND,
        errno.ESTALE: NOT_FOUND,
        errno.EPERM: NOT_PERMITTED,
        errno.EACCES: NOT_PERMITTED,
        errno.EINVAL: CALLED_WRONGLY,
    }
    # Right in itself, and refused because of what there is: another time it may do.
    is_state = isinstance(error, InvalidRequest) and not isinstance(error, InvalidArgument)
    sys.exit(REFUSED if is_state else kinds.get(code, REFUSED))


def is_number(name: str) -> bool:
    """Tell whether a set is named by its number, as in `#3`."""
    return re.fullmatch("#[0-9]+", name) is not None


async def set_of(session: Looker, name: str) -> SetRecord:
    """Return a set by its token, or by its number as in `#3`.

    Raises `InvalidArgument` for what is the number of one set and the token of another, which a
    program may have given it.
    """
    if not is_number(name):
        return await session.find_set(name)
    try:
        same = await session.find_set(name)
    except UnknownToken:
        return await session.find_set(sid=int(name[1:]))
    if same.sid != int(name[1:]):
        # A zero more is the same number, and no token that is known of.
        raise InvalidArgument(
            "NAME",
            f"{name}, the token of set {same.sid} and the number of another",
            f"#0{same.sid} or #0{name[1:]}",
        )
    return same


def named(found: SetRecord) -> str:
    """Return what a set is called: its token, and its number as in `#3`."""
    return f"#{found.sid}" if found.token is None else f"{found.token} (#{found.sid})"


# -- completion ---------------------------------------------------------------------------------


def tokens(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the token of a set, or its number where that alone names it."""

    async def ask(looker: Looker) -> list[str]:
        found = await pages(looker.list_sets, "sets")
        return [
            f"#{each.sid}" if each.token is None or is_number(each.token) else each.token
            for each in found
        ]

    return _names(context, begun, ask)


def holder_names(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the name of a holder."""

    async def ask(looker: Looker) -> list[str]:
        return [each.holder for each in await pages(looker.list_holders, "holders")]

    return _names(context, begun, ask)


def group_names(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the name of a group."""

    async def ask(looker: Looker) -> list[str]:
        return [each.name for each in await pages(looker.list_groups, "groups")]

    return _names(context, begun, ask)


def _names(
    context: click.Context, begun: str, ask: Callable[[Looker], Awaitable[list[str]]]
) -> list[CompletionItem]:
    given = context.find_root().params
    caller = Caller(given.get("path"), given.get("holder"), given.get("token"))

    async def soon() -> list[str]:
        with anyio.fail_after(COMPLETED_WITHIN):
            return await caller.ask_looking(ask)

    try:
        found = anyio.run(soon)
    except (IoasidError, TimeoutError):
        # Nobody is told of errors while they type.
        return []
    # A shell takes each line for a name, and types what it is given.
    return [CompletionItem(name) for name in found if name.startswith(begun) and name.isprintable()]
