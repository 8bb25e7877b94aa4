"""A table of the live view, above what test_top.py shows: its bound, and where its cursor stays."""

import importlib.util

import pytest

if importlib.util.find_spec("textual") is None:
    pytest.skip("Textual is not installed: pip install 'ioasid[top]'", allow_module_level=True)

from textual.app import App, ComposeResult

from ioasid.core import SetRecord, SetState, TokenType
from ioasid.service._top_rows import Panel, _set
from ioasid.service._top_table import SHOWN, Table

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Textual runs on asyncio alone."""
    return "asyncio"


class OneTable(App[None]):
    """Nothing but the table."""

    def compose(self) -> ComposeResult:
        yield Table(Panel.SETS)


async def test_many_rows() -> None:
    """Of many rows the first are drawn, and the cursor stays on its row while others come."""
    lines = [
        _set(SetRecord(sid, f"vm-{sid}", TokenType.MM, 100, sid % 100, SetState.ACTIVE))
        for sid in range(1000)
    ]
    app = OneTable()
    async with app.run_test() as pilot:
        table = app.query_one(Table)
        table.show(lines[:10], 0)
        table.move_cursor(row=3)
        chosen = table.chosen
        table.show(lines[5:10] + lines[:5], 0)
        assert chosen == table.chosen
        table.show(lines, 0)
        assert (SHOWN, "200 of 1,000") == (table.row_count, table.border_subtitle)
        await pilot.click(Table, offset=(3, 1))
        table.filter_by("vm-999")
        assert ["vm-999"] == [str(table.get_row_at(0)[0])]
        assert all(each.get_render_width(table) > 4 for each in table.ordered_columns[:1])
        table.sort_by_next(1)
        assert ["set  ", "state ▲"] == [str(table.ordered_columns[each].label) for each in (0, -1)]
        table.show([], 0)
        assert None is table.chosen
