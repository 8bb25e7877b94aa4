"""The live view: what is in quarantine and for whom, who is down, and how full sets and groups are.

It looks again and again, as `status` and `why` do once. It holds nothing and subscribes to nothing,
so it keeps no ID from the pool.
"""

from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Final

from anyio import Event as Signal
from anyio import current_time, move_on_after
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal
from textual.widgets import DataTable, Footer, Input, Static

from ioasid.actors import Session
from ioasid.core import IoasidError
from ioasid.core._plurals import counted
from ioasid.service._eviction import evicted, said_of_eviction, warning_of_eviction
from ioasid.service._plain import plain
from ioasid.service._recorded import Recorded
from ioasid.service._saying import said
from ioasid.service._survey import Source, Survey, Surveyor
from ioasid.service._top_dialogs import Question, Said
from ioasid.service._top_rows import Panel, curve, lines_of, said_of_holder, time
from ioasid.service._top_table import Table

__all__: list[str] = []

Look = Callable[[], AbstractAsyncContextManager[Source]]
Connect = Callable[[], AbstractAsyncContextManager[Session]]

AGAIN_AFTER: Final = 1.0
"""Seconds until it connects again."""
PAST: Final = 60
"""So many looks are in the curves."""


class Top(App[None]):
    """The live view of a service, or of a recording; a session is opened for who evicts."""

    TITLE = "ioasid top"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012 - as Textual has it
    CSS = """
    #figures { height: auto; padding: 0 1; }
    #curves { height: 1; padding: 0 1; }
    #curves Static { width: 1fr; }
    .-wide #tables { layout: grid; grid-size: 2; grid-rows: 3fr 2fr; }
    Table { border: round $primary-darken-2; height: 3fr; width: 1fr; scrollbar-size: 0 1; }
    #groups { height: 2fr; }
    .-wide Table, .-wide #groups { height: 1fr; }
    Table:focus { border: round $accent; }
    #filter { dock: bottom; display: none; height: 3; margin-bottom: 1; }
    #filter.shown { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w,enter", "why", "Why?"),
        Binding("e", "evict", "Evict"),
        Binding("s", "sort(1)", "Sort"),
        Binding("r", "reverse", "Reverse"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("tab", "app.focus_next", "Next table"),
        Binding("escape", "clear", "Clear", show=False),
        Binding("left_square_bracket", "go(-1)", "Back", key_display="["),
        Binding("right_square_bracket", "go(1)", "On", key_display="]"),
        Binding("left_curly_bracket", "go(-100)", "100 back", key_display="{", show=False),
        Binding("right_curly_bracket", "go(100)", "100 on", key_display="}", show=False),
        Binding("space", "play", "Play"),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+z", "suspend_process", "Stop", show=False),
    ]

    def __init__(
        self, source: Look | Recorded, connect: Connect | None = None, *, every: float = 1.0
    ) -> None:
        super().__init__()
        self._source = source
        self._open_session = connect
        self._every = every
        self._asked: Source | None = source if isinstance(source, Recorded) else None
        self._again = Signal()
        self._seen: Survey | None = None
        self._seen_at = 0.0
        self._events: deque[float] = deque(maxlen=PAST)
        self._kept: deque[float] = deque(maxlen=PAST)
        self._curves: Final = {
            "events": ("events a second ", self._events),
            "kept": ("in quarantine ", self._kept),
        }
        self._plays = False

    # -- what is there ------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Say what is on the screen."""
        yield Static(id="figures")
        with Horizontal(id="curves"):
            yield Static(id="events")
            yield Static(id="kept")
        with Container(id="tables"):
            for panel in Panel:
                yield Table(panel)
        yield Input(placeholder="only rows that have this text; Escape shows all", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self.query_one("#filter", Input).can_focus = False
        self.query(Table).first().focus()
        if isinstance(self._source, Recorded):
            self.query_one("#curves").display = False
            self.run_worker(self._replay(self._source))
        else:
            self.run_worker(self._keep_looking(self._source))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer to move in a recording, or to evict where there is none."""
        if action in {"go", "play"}:
            return isinstance(self._source, Recorded)
        return action != "evict" or self._open_session is not None

    # -- looking ------------------------------------------------------------------------------

    async def _keep_looking(self, look: Look) -> None:
        while True:
            try:
                async with look() as looker:
                    self._asked = looker
                    surveyor = Surveyor(looker)
                    while True:
                        await self._look(surveyor)
                        self._again = Signal()
                        with move_on_after(self._every):
                            await self._again.wait()
            except IoasidError as error:
                self._asked = None
                for field in self.query("#figures").results(Static):
                    field.update(Text.assemble((said(error), "bold red"), "; trying again"))
            self._again = Signal()
            with move_on_after(AGAIN_AFTER):
                await self._again.wait()

    def look_again(self) -> None:
        """Look, or connect, at once and not when its time comes."""
        self._again.set()

    async def _look(self, surveyor: Surveyor) -> None:
        survey = await surveyor.look()
        now = current_time()
        rate = 0.0
        if self._seen is not None:
            rate = (survey.figures.seq - self._seen.figures.seq) / max(now - self._seen_at, 1e-3)
            self._events.append(max(rate, 0))
        self._kept.append(survey.figures.free_pending)
        self._seen_at = now
        self._show(survey, f"{rate:,.0f} events/s")
        for field in self.query("#curves Static").results(Static):
            label, past = self._curves[field.id or ""]
            field.update(label + curve(past, field.size.width - len(label)))

    async def _replay(self, recorded: Recorded) -> None:
        surveyor = Surveyor(recorded, listed=1 << 62)
        while True:
            survey = await surveyor.look()
            place = f"decision {recorded.position:,} of {len(recorded):,}, at {recorded.time:.3f} s"
            self._show(survey, place)
            self._again = Signal()
            following = next(iter(recorded.next_times()), None)
            if self._plays and following is not None:
                with move_on_after(max(following - recorded.time, 0)):
                    await self._again.wait()
                if self._plays:
                    recorded.go(recorded.position + 1)
            else:
                self._plays = False
                await self._again.wait()

    def _show(self, survey: Survey, moving: str) -> None:
        self._seen = survey
        figures = survey.figures
        down = sum(each.session is None for each in survey.holders)
        holders = "holder" if len(survey.holders) == 1 else "holders"
        overdue = len({each.holder for each in figures.lagging if each.overdue})
        text = (
            f"[b]{figures.capacity:,}[/] IDs: [b]{figures.active:,}[/] in use, "
            f"{_marked(figures.free_pending, 'yellow')} in quarantine, "
            f"{figures.available:,} available to sets · "
            f"[b]{len(survey.holders)}[/] {holders}, {_marked(down, 'red')} down, "
            f"{_marked(overdue, 'red')} overdue · {moving}"
        )
        if survey.unlisted:
            text += f" · {counted(survey.unlisted, 'set')} to be looked into later"
        # When it ends, what is on the screen goes piece by piece.
        for field in self.query("#figures").results(Static):
            field.update(text)
        lines = lines_of(survey)
        for table in self.query(Table):
            if table.panel is Panel.GROUPS:
                table.display = bool(survey.groups)
            more = figures.free_pending - len(survey.kept)
            table.show(lines[table.panel], more if table.panel is Panel.QUARANTINE else 0)

    # -- keys ---------------------------------------------------------------------------------

    @property
    def _table(self) -> Table:
        focused = self.focused
        return focused if isinstance(focused, Table) else self.query(Table).first()

    def on_data_table_row_selected(self, _: DataTable.RowSelected) -> None:
        """Say why, of the row that Enter or a click chose."""
        self.action_why()

    def action_why(self) -> None:
        """Say why an ID is not back, or what a holder has to do."""
        line = self._table.chosen
        if line is None or self._seen is None:
            return
        match self._table.panel:
            case Panel.QUARANTINE:
                self.run_worker(self._say_why(int(line.key)))
            case Panel.HOLDERS:
                holder = next(each for each in self._seen.holders if each.holder == line.key)
                _ = self.push_screen(Said(line.key, said_of_holder(holder)))
            case panel:
                kept = [each for each in self._seen.kept if line.texts[0] == each.why.token]
                oldest = f", the oldest for {time(kept[0].why.age or 0)}" if kept else ""
                text = " ".join(line.texts)
                said = f"{panel[:-1]} {text}."
                if panel is Panel.SETS:
                    said += f"\n{len(kept)} of its IDs are in quarantine{oldest}."
                _ = self.push_screen(Said(line.key, said))

    async def _say_why(self, ioasid: int) -> None:
        if self._asked is None:
            return
        try:
            text = (await self._asked.explain(ioasid)).text
        except IoasidError as error:
            text = said(error)
        await self.push_screen(Said(f"why {ioasid}, when you asked", text))

    def action_evict(self) -> None:
        """Ask, and then evict the holder of the row, or the one that its ID waits for."""
        line = self._table.chosen
        if line is None or not line.blockers:
            self.notify("choose a holder, or an ID that waits for one")
        elif len(line.blockers) > 1:
            self.notify(f"{line.key} waits for several: choose one of the holders", markup=False)
        else:
            (name,) = line.blockers
            self.run_worker(self._evict(name))

    async def _evict(self, name: str) -> None:
        assert self._open_session is not None
        if self._asked is None:
            return
        try:
            # Anew: what is on the screen may be of a time before it came back.
            warning = await warning_of_eviction(self._asked, name)
            if not await self.push_screen_wait(Question(f"Evict {name}?", warning)):
                return
            async with self._open_session() as session:
                found = await evicted(session, name)
        except IoasidError as error:
            self.notify(plain(said(error)), severity="error", markup=False)
        else:
            self.notify("\n".join(map(plain, said_of_eviction(found))), markup=False)
            self.look_again()

    def action_sort(self, by: int) -> None:
        """Sort the table by its next column."""
        self._table.sort_by_next(by)

    def action_reverse(self) -> None:
        """Turn the order of the table round."""
        self._table.turn_round()

    def action_filter(self) -> None:
        """Ask for the text that rows must have."""
        field = self.query_one("#filter", Input)
        field.add_class("shown")
        field.can_focus = True
        field.focus()

    def action_clear(self) -> None:
        """Show all rows again."""
        field = self.query_one("#filter", Input)
        field.value = ""
        self._leave_filter(field)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show the rows that have the text as it is typed."""
        for table in self.query(Table):
            table.filter_by(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go back to the tables; the filter stays."""
        self._leave_filter(event.input)

    def _leave_filter(self, field: Input) -> None:
        if field.has_focus:
            self.query(Table).first().focus()
        field.can_focus = False
        field.set_class(bool(field.value), "shown")

    def action_go(self, by: int) -> None:
        """Go back or on in the recording."""
        if isinstance(self._source, Recorded):
            self._plays = False
            self._source.go(self._source.position + by)
            self.look_again()

    def action_play(self) -> None:
        """Let the recording go on by itself, or stop it."""
        self._plays = not self._plays
        self.look_again()


def _marked(count: int, style: str) -> str:
    return f"[b {style}]{count:,}[/]" if count else "0"
