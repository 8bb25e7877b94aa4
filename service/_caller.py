"""What the commands share: what they are called with, how they reach the service, and show it."""

import math
import os
import re
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Final, TypeVar

import anyio
import click
import msgspec
from click.core import ParameterSource
from click.shell_completion import CompletionItem
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ioasid.actors import Session
from ioasid.actors._looker import Looker
from ioasid.core import (
    InvalidArgument,
    IoasidError,
    IoasidState,
    SetRecord,
    SetState,
    UnknownToken,
)
from ioasid.service._connect import DEFAULT_PATH, connect_allocator, looking
from ioasid.service._errors import ConnectionFailed
from ioasid.service._gate import Member
from ioasid.service._plain import plain
from ioasid.service._saying import NAMED, fail
from ioasid.service._survey import pages

__all__: list[str] = []

S = TypeVar("S")
T = TypeVar("T")

JSON: Final = "ioasid.json"
"""Where a context has whether JSON was chosen, before a command's name or after it."""
TITLES: Final = {
    "age": "in this state, s",
    "free_pending": "in quarantine",
    "oldest_age": "oldest message, s",
}
"""What a column is called where its field's name does not say it."""
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

    def run(self, ask: Callable[[Session], Awaitable[T]]) -> T:
        """Run one command's requests in a session of their own."""
        return _run(partial(self._ask, self.connect(), ask))

    def look(self, ask: Callable[[Looker], Awaitable[T]]) -> T:
        """Run the requests of a command that only looks, without a session."""
        return _run(partial(self.ask_looking, ask))

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
            table.add_column(TITLES.get(name, name.replace("_", " ")), overflow="fold")
        for row in rows:
            cells = (_cell(name, getattr(row, name)) for name in columns)
            # As text: in a string, Rich takes [...] for markup.
            table.add_row(*(Text(plain(each)) for each in cells))
        console = Console(soft_wrap=not sys.stdout.isatty())
        with console.capture() as drawn:
            console.print(table)
        # Rich fills the last column with blanks, which nobody wants in a pipe.
        click.echo("\n".join(each.rstrip() for each in drawn.get().splitlines()))


def _run(work: Callable[[], Awaitable[T]]) -> T:
    try:
        return anyio.run(work)
    except IoasidError as error:
        fail(error)


def _cell(name: str, value: Any) -> str:
    match value:
        case None:
            return "suspended" if name == "session" else "-"
        case bool():
            return "yes" if value else "no"
        case IoasidState.FREE_PENDING | SetState.FREE_PENDING:
            return TITLES["free_pending"]
        case float():
            return f"{value:.3f}"
        case dict():
            return ", ".join(f"{name}: {count}" for name, count in value.items()) or "-"
        case tuple():
            return str(len(value))
        case _:
            return str(value)


class Careful(click.Command):
    """A command that refuses empty text for whatever it takes.

    It comes from a variable that nobody has set; what is taken unless told would be used silently.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take what it is called with; fails with a usage error."""
        rest = super().parse_args(ctx, args)
        for each in () if ctx.resilient_parsing else self.params:
            if ctx.params.get(each.name or "") == "":
                raise click.BadParameter("it is empty", ctx, each)
            from_shell = ctx.get_parameter_source(each.name or "") is ParameterSource.COMMANDLINE
            for name in () if from_shell else variables(each):
                if os.environ.get(name) == "":
                    raise click.UsageError(f"${name} is empty; give it a value, or unset it", ctx)
        return rest


def variables(parameter: click.Parameter) -> list[str]:
    """Return the names of the variables that a parameter is taken from."""
    found = parameter.envvar
    return [] if found is None else [found] if isinstance(found, str) else list(found)


class Group(Careful, click.Group):
    """Commands with a name in common, and what all of them take."""


class Command(Careful):
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
    """A number in a range, in decimal or, as kernel logs have it, with 0x in front."""

    name = "number"

    def __init__(self, low: int, high: int) -> None:
        self._low = low
        self._high = high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; fails with a usage error."""
        # A default is a number already.
        text = str(value)
        if not re.fullmatch("[0-9]+|0[xX][0-9a-fA-F]+", text):
            self.fail(f"{value!r} is no number, such as 17 or 0x11", param, ctx)
        number = int(text, 16 if "x" in text.lower() else 10)
        if not self._low <= number <= self._high:
            self.fail(f"{value} is not in {self._low}..{self._high}", param, ctx)
        return number


IOASID: Final = Number(0, 2**32 - 2)
COUNT: Final = Number(1, 2**32 - 1)
"""Of a quota or a limit."""
FILE: Final = click.Path(readable=False)
"""Whoever opens it says what is wrong with it, and ends with the status for that."""


def is_number(name: str) -> bool:
    """Tell whether a set is named by its number, as in `#3`."""
    return re.fullmatch("#[0-9]+", name) is not None


async def set_of(session: Looker, name: str) -> SetRecord:
    """Return a set by its token, or by its number as in `#3`; what is refused for it names both.

    Raises `InvalidArgument` for what is the number of one set and the token of another, which a
    program may have given it.
    """
    found = await _set_of(session, name)
    click.get_current_context().meta[NAMED] = found
    return found


async def _set_of(session: Looker, name: str) -> SetRecord:
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
