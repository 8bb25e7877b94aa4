"""A table of the live view: sorted, filtered, and with its cursor where it was."""

from typing import Final

from rich.text import Text
from textual.widgets import DataTable

from ioasid.service._top_rows import COLUMNS, FIRST, Line, Panel, arranged

__all__: list[str] = []

UNSORTED: Final = " "
"""Where the others have the mark of a column that rows are sorted by."""
SHOWN: Final = 200
"""So many rows are drawn; what is below them is found by sorting and filtering."""


class Table(DataTable[object]):
    """One table, whose rows are replaced again and again."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(
            id=panel.name.lower(),
            cursor_type="row",
            cursor_foreground_priority="renderable",
            zebra_stripes=True,
        )
        self.panel: Final = panel
        self.border_title = panel
        self._lines: list[Line] = []
        self._rows: list[Line] = []
        self._more = 0
        self._wanted = ""
        self._column = FIRST[panel]
        self._reverse = COLUMNS[panel][self._column].greatest_first

    def on_mount(self) -> None:
        """Make the columns; they stay, and so do their widths while rows come and go."""
        for column in COLUMNS[self.panel]:
            self.add_column(f"{column.name} {UNSORTED}")
        self._draw()

    @property
    def chosen(self) -> Line | None:
        """The row under the cursor."""
        row = self.cursor_row
        return self._rows[row] if 0 <= row < len(self._rows) else None

    def show(self, lines: list[Line], more: int) -> None:
        """Show other rows, of which there are `more`."""
        self._lines, self._more = lines, more
        self._draw()

    def filter_by(self, wanted: str) -> None:
        """Show the rows that have a text."""
        self._wanted = wanted
        self._draw()

    def sort_by_next(self, by: int) -> None:
        """Sort by the next column."""
        columns = COLUMNS[self.panel]
        self._sort((self._column + by) % len(columns))

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """Sort by the column that was clicked, or turn it round."""
        if event.column_index == self._column:
            self.turn_round()
        else:
            self._sort(event.column_index)

    def _sort(self, column: int) -> None:
        self._column = column
        self._reverse = COLUMNS[self.panel][column].greatest_first
        self._draw()

    def turn_round(self) -> None:
        """Turn the order round."""
        self._reverse = not self._reverse
        self._draw()

    def _draw(self) -> None:
        before, top = self.chosen, self.scroll_y
        found = arranged(self._lines, self._wanted, self._column, reverse=self._reverse)
        self._rows = found[:SHOWN]
        self.clear()
        for number, column in enumerate(self.ordered_columns):
            mark = UNSORTED if number != self._column else "▼" if self._reverse else "▲"
            column.label = Text(f"{COLUMNS[self.panel][number].name} {mark}")
        for line in self._rows:
            self.add_row(*line.cells, key=line.key)
        more = len(self._lines) - len(self._rows) + self._more
        self.border_subtitle = f"{len(self._rows):,} of {len(self._rows) + more:,}" if more else ""
        keys = [each.key for each in self._rows]
        if before is not None and before.key in keys:
            self.move_cursor(row=keys.index(before.key), scroll=False)
        self.scroll_to(y=top, animate=False)
