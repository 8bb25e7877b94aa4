"""The command that shows what happens, as it happens; it keeps no ID, whoever does not read on.

The service does not wait for it, so it may be stopped, in a debugger for instance, or hang. What
comes is shown by a thread: a terminal that stands still, or a pipe that nobody reads, stops the
thread and nothing else. Stopped with Ctrl-Z it unsubscribes, and leaves the terminal as it was.
"""

import asyncio
import io
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any, Final, Protocol

import anyio
import click
import msgspec
from anyio import CancelScope, open_signal_receiver
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ioasid.actors import Session
from ioasid.core import Event, EventKind, IoasidError, Resync
from ioasid.core._plurals import counted
from ioasid.service._caller import Caller, Command, is_number, set_of, tokens
from ioasid.service._plain import plain
from ioasid.service._saying import NO_SERVICE, say

__all__: list[str] = []

WAITING: Final = 10_000
"""So many messages wait to be shown; then the oldest ones are left out, and counted."""
REDRAWN_EVERY: Final = 0.1
"""Seconds between two drawings of a table."""
PATIENCE: Final = 0.5
"""Seconds that the end waits for a terminal."""
STYLES: Final = {
    EventKind.ALLOC: "green",
    EventKind.FREE: "yellow",
    EventKind.RECLAIM: "cyan",
}


@click.command(cls=Command)
@click.option(
    "--token",
    "scope",
    shell_complete=tokens,
    help="Only the set of this token, or of this number as in '#3'.",
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(list(EventKind)),
    help="Only events of this kind; may be given several times.",
)
@click.option("--count", type=click.IntRange(min=1), help="End after this many.")
@click.pass_obj
def watch(caller: Caller, scope: str | None, kinds: tuple[str, ...], count: int | None) -> None:
    """Show what happens to sets and IDs, as it happens.

    It is a live table on a terminal, and otherwise a line for each event. No ID waits for it, even
    if it is stopped or hangs: a RESYNC then stands for what it missed. What you read too slowly is
    left out, and counted. Ctrl-C ends it, with 0.

    \b
    Examples:
      ioasid watch
      ioasid watch --token vm-1 --kind FREE --kind RECLAIM
      ioasid watch -o json | jq -c '[.kind, .ioasid]'
    """  # noqa: D301 - the \b is for Click, which keeps the lines below as they are
    given = frozenset(map(EventKind, kinds)) or frozenset(EventKind)
    is_json = caller.is_json

    def new_view() -> View:
        if is_json:
            return Lines(lambda message: msgspec.json.encode(message).decode())
        return LiveTable() if os.isatty(STDOUT) else Lines(said)

    watching = Watching(new_view, scope or caller.token, given, count)
    try:
        ended = caller.run(watching.run)
    except KeyboardInterrupt:
        ended = False
    finally:
        watching.close(PATIENCE)
    if ended:
        say("ioasid: the service ended", err=True)
        sys.exit(NO_SERVICE)


class Watching:
    """One who watches: takes what comes, and hands it on to a thread that shows it."""

    def __init__(
        self,
        new_view: "Callable[[], View]",
        token: str | None,
        kinds: frozenset[EventKind],
        count: int | None,
    ) -> None:
        self._new_view = new_view
        self._token = token
        self._kinds = kinds
        self._left = count
        self._printer: Printer | None = None
        self._scope: CancelScope
        self._stopped = False

    async def run(self, session: Session) -> bool:
        """Watch until enough is seen, nobody reads on, or the service ends: only then `True`."""
        with open_signal_receiver(signal.SIGTSTP) as stops:
            while True:
                self._stopped, self._scope = False, CancelScope()
                ended: bool | IoasidError
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._stop, stops)
                    try:
                        ended = await self._watch(session)
                    except IoasidError as error:
                        ended = error
                    tasks.cancel_scope.cancel()
                self.close(PATIENCE if self._stopped else None)
                if isinstance(ended, IoasidError):
                    raise ended
                if not self._stopped:
                    return ended
                os.kill(os.getpid(), signal.SIGSTOP)

    async def _stop(self, stops: AsyncIterator[signal.Signals]) -> None:
        async for _ in stops:
            self._stopped = True
            self._scope.cancel()

    async def _watch(self, session: Session) -> bool:
        token, sid = self._token, None
        if token is not None and is_number(token):
            # A token may be that of a set to come.
            sid, token = (await set_of(session, token)).sid, None
        subscribing = session.subscribe(token=token, sid=sid, kinds=self._kinds, awaited=False)
        async with subscribing as events:
            # What is cancelled in here leaves in order.
            with self._scope:
                loop = asyncio.get_running_loop()
                cancel = self._scope.cancel
                printer = Printer(self._new_view(), lambda: loop.call_soon_threadsafe(cancel))
                self._printer = printer
                async for message in events:
                    events.acknowledge(message)
                    printer.put(message)
                    if self._left is not None:
                        self._left -= 1
                        if not self._left:
                            return False
                return True
        return False

    def close(self, within: float | None) -> None:
        """Show what waits to be shown, unless that takes longer."""
        printer, self._printer = self._printer, None
        if printer is not None:
            printer.close(within)


class View(Protocol):
    """How messages are shown; used by one thread."""

    def show(self, messages: list[Event | Resync], left_out: int) -> None:
        """Show messages, and that some before them are left out. Raises OSError if nobody reads."""

    def end(self) -> None:
        """Leave the terminal as it was."""


class Printer:
    """A thread that shows what is put, and keeps nobody waiting."""

    def __init__(self, view: View, failed: Callable[[], object]) -> None:
        self._view = view
        self._failed = failed
        self._messages: deque[Event | Resync] = deque()
        self._left_out = 0
        self._ended = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="ioasid watch", daemon=True)
        self._thread.start()

    def put(self, message: Event | Resync) -> None:
        """Have a message shown; of too many, the oldest are left out."""
        with self._change:
            self._messages.append(message)
            if len(self._messages) > WAITING:
                self._messages.popleft()
                self._left_out += 1
            self._change.notify()

    def close(self, within: float | None) -> None:
        """Wait until all is shown, or for so many seconds."""
        with self._change:
            self._ended = True
            self._change.notify()
        self._thread.join(within)

    def _run(self) -> None:
        try:
            self._show()
        except OSError:
            self._failed()

    def _show(self) -> None:
        view = self._view
        try:
            view.show([], 0)
            while True:
                with self._change:
                    self._change.wait_for(lambda: self._messages or self._ended)
                    messages, self._messages = list(self._messages), deque()
                    left_out, self._left_out = self._left_out, 0
                if not messages:
                    break
                view.show(messages, left_out)
        finally:
            view.end()


# -- views --------------------------------------------------------------------------------------

STDOUT: Final = 1


class Output(io.TextIOBase):
    """The standard output without a lock, which a thread that is stuck would keep from the end."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return os.isatty(STDOUT)

    def fileno(self) -> int:
        """Return its number."""
        return STDOUT

    def write(self, text: str) -> int:
        """Write all of it."""
        data = text.encode()
        while data:
            data = data[os.write(STDOUT, data) :]
        return len(text)


class Lines:
    """A line for each message."""

    def __init__(self, said: Callable[[Event | Resync], str]) -> None:
        self._said = said
        self._output = Output()

    def show(self, messages: list[Event | Resync], left_out: int) -> None:
        """Write them."""
        if left_out:
            what = counted(left_out, "event")
            click.echo(f"ioasid: nobody read fast enough: {what} left out", err=True)
        self._output.write("".join(f"{self._said(each)}\n" for each in messages))

    def end(self) -> None:
        """Do nothing."""


def said(message: Event | Resync) -> str:
    """Return a message in a line."""
    if isinstance(message, Resync):
        return f"{message.seq:>8}  RESYNC   {counted(sum(1 for _ in message), 'ID')}"
    spid = "" if message.spid is None else f", {message.spid}"
    name = f"#{message.sid}" if message.token is None else plain(message.token)
    return f"{message.seq:>8}  {message.kind:<8} {message.ioasid} ({name}{spid})"


class LiveTable:
    """The last messages as a table that fits the terminal, and how many there were of each kind."""

    def __init__(self) -> None:
        console = Console(file=Output())  # type: ignore[arg-type] # Rich names a class of files
        self._console = console
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()
        self._rows: deque[tuple[Any, ...]] = deque(maxlen=200)
        self._counts: Counter[str] = Counter()
        self._left_out = 0

    def show(self, messages: list[Event | Resync], left_out: int) -> None:
        """Draw the table anew, and not again at once."""
        row: tuple[Any, ...]
        now = f"{datetime.now().astimezone():%H:%M:%S}"
        self._left_out += left_out
        for each in messages:
            if isinstance(each, Resync):
                self._counts["RESYNC"] += 1
                row = (now, each.seq, "RESYNC", counted(sum(1 for _ in each), "ID"), "", "", "")
            else:
                self._counts[each.kind] += 1
                name = f"#{each.sid}" if each.token is None else each.token
                row = (now, each.seq, each.kind, each.ioasid, each.generation, name, each.spid)
            self._rows.append(row)
        self._live.update(self._table(), refresh=True)
        time.sleep(REDRAWN_EVERY)

    def _table(self) -> Table:
        counts = ", ".join(f"{count:,} {kind}" for kind, count in self._counts.items())
        left_out = f", {self._left_out:,} left out" if self._left_out else ""
        table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left")
        table.caption = f"{counts or 'nothing has happened yet'}{left_out}; Ctrl-C ends it"
        for name in ("time", "seq", "event", "ID", "generation", "set", "spid"):
            right = name in {"seq", "ID", "generation", "spid"}
            table.add_column(name, justify="right" if right else "left", no_wrap=True)
        for row in list(self._rows)[-max(self._console.height - 4, 1) :]:
            cells = [Text("-" if each is None else plain(str(each))) for each in row]
            cells[2].stylize(STYLES.get(row[2], ""))
            table.add_row(*cells)
        return table

    def end(self) -> None:
        """Show the cursor again."""
        self._live.stop()
