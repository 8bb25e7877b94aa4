"""The live view, driven by Textual's own pilot over real allocators."""

import importlib.util
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path

import anyio
import pytest

if importlib.util.find_spec("textual") is None:
    pytest.skip("Textual is not installed: pip install 'ioasid[top]'", allow_module_level=True)

from textual.containers import Vertical
from textual.pilot import Pilot
from textual.widgets import Static

from ioasid.actors import Session, open_allocator
from ioasid.recorder import read, record
from ioasid.service import connect_allocator
from ioasid.service._recorded import Recorded
from ioasid.service._top import Connect, Top
from ioasid.service._top_dialogs import Question, Said
from ioasid.service._top_rows import Panel
from ioasid.service._top_table import Table
from tests.service.programs import PATIENCE
from tests.service.services import a_service

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Textual runs on asyncio alone."""
    return "asyncio"


class Screen:
    """What somebody who sits before it sees and types."""

    def __init__(self, app: Top, pilot: Pilot[None]) -> None:
        self.app = app
        self._pilot = pilot

    def rows(self, panel: Panel) -> list[list[str]]:
        """What a table shows."""
        table = self.app.query_one(f"#{panel.name.lower()}", Table)
        return [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]

    def firsts(self, panel: Panel) -> list[str]:
        """The first column of a table."""
        return [row[0] for row in self.rows(panel)]

    @property
    def figures(self) -> str:
        """The line on top."""
        return str(self.app.query_one("#figures", Static).render())

    async def press(self, *keys: str) -> None:
        """Type."""
        await self._pilot.press(*keys)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something shows."""
        with anyio.move_on_after(PATIENCE):
            while not condition():
                self.app.look_again()
                await anyio.sleep(0.005)
            return
        raise AssertionError(self.figures)

    def said(self) -> str:
        """What the dialog on top says, if there is one."""
        screen = self.app.screen
        return screen.text if isinstance(screen, Said) else ""


@asynccontextmanager
async def a_screen(source: Connect | Recorded, width: int = 100) -> AsyncIterator[Screen]:
    """The live view on a screen of its own."""
    app = Top(source, None if isinstance(source, Recorded) else source, every=3600)
    async with app.run_test(size=(width, 40)) as pilot:
        yield Screen(app, pilot)


@asynccontextmanager
async def a_host() -> AsyncIterator[Session]:
    """An allocator with a group, three sets, and two IDs in quarantine."""
    async with open_allocator(holder="host") as host:
        await host.alloc_group("tenant", 30)
        for token, quota, count in (("vm-1", 8, 8), ("vm-2", 16, 1), ("web", 4, 0)):
            vm = await host.alloc_set(token, quota, group="tenant")
            for _ in range(count):
                await host.alloc(vm.sid)
        async with host.session("vtd") as vtd, host.session("dsa") as dsa:
            for session, pasid in ((vtd, 1), (dsa, 2), (vtd, 2)):
                await session.get(pasid)
            await host.free(1)
            await host.free(2)
            yield host


async def test_what_is_seen() -> None:
    """Sets and groups against their limits, what is in quarantine, and who keeps it there."""
    async with a_host() as host, a_screen(lambda: nullcontext(host), width=150) as screen:
        await screen.until(lambda: screen.rows(Panel.QUARANTINE))
        assert {("1", "vm-1", "vtd"), ("2", "vm-1", "dsa, vtd")} == {
            (ioasid, name, waits) for ioasid, name, _, waits in screen.rows(Panel.QUARANTINE)
        }
        # The fullest first.
        assert [
            ["vm-1", "tenant", "8", "8", "█████ 100%", "ACTIVE"],
            ["vm-2", "tenant", "1", "16", "█░░░░   6%", "ACTIVE"],
            ["web", "tenant", "0", "4", "░░░░░   0%", "ACTIVE"],
        ] == screen.rows(Panel.SETS)
        assert [["tenant", "-", "28", "30", "████░  93%"]] == screen.rows(Panel.GROUPS)
        assert {"vtd": "1, 2", "dsa": "2", "host": "-"} == {
            row[0]: row[5] for row in screen.rows(Panel.HOLDERS)
        }
        assert "7 in use, 2 in quarantine" in screen.figures


async def test_why() -> None:
    """A key says of an ID why it is not back, and of a holder what it has to do."""
    async with a_host() as host, a_screen(lambda: nullcontext(host)) as screen:
        await screen.until(lambda: screen.rows(Panel.QUARANTINE))
        for keys, text in (
            (["w"], "vtd has 1 reference"),
            (["tab", "enter"], "It took references of"),
            (["tab", "w"], "2 of its IDs are in quarantine"),
            (["tab", "w"], "Group tenant"),
        ):
            await screen.press(*keys)
            await screen.until(screen.said)
            assert text in screen.said()
            if keys == ["w"]:
                # The row behind it counts on.
                box = screen.app.screen.query_one(Vertical)
                assert box.border_title in ("why 1, when you asked", "why 2, when you asked")
            await screen.press("escape")
            await screen.until(lambda: not screen.said())


async def test_evict(monkeypatch: pytest.MonkeyPatch) -> None:
    """It warns of who is live and asks; only if the answer is yes it evicts, and says what came."""
    # It stands there until it was looked at.
    monkeypatch.setattr(Top, "NOTIFICATION_TIMEOUT", 3600)
    async with a_host() as host, a_screen(lambda: nullcontext(host)) as screen:
        await screen.until(lambda: screen.rows(Panel.QUARANTINE))
        for refusal in ("n", "enter", "escape"):
            await screen.press("tab")
            while str(screen.rows(Panel.HOLDERS)[0][0]) != "vtd":
                await screen.press("s")
            await screen.press("e")
            await screen.until(
                lambda: isinstance(screen.app.screen, Question) and screen.app.screen.query(Static)
            )
            assert "vtd is live (session " in str(screen.app.screen.query(Static).first().render())
            await screen.press(refusal)
            await screen.until(lambda: not isinstance(screen.app.screen, Question))
            assert "vtd" in screen.firsts(Panel.HOLDERS)
            await screen.press("shift+tab")
        await screen.press("tab", "e")
        await screen.until(lambda: isinstance(screen.app.screen, Question))
        await screen.press("y")
        await screen.until(lambda: "vtd" not in screen.firsts(Panel.HOLDERS))
        await screen.until(lambda: ["2"] == screen.firsts(Panel.QUARANTINE))
        (said,) = (each.message for each in screen.app._notifications)
        assert "vtd is evicted. Back in the pool: 1.\n2 still waits for dsa." == said


async def test_sorting_and_filtering() -> None:
    """Each table is sorted by any column, either way, and rows are filtered in all of them."""
    async with a_host() as host, a_screen(lambda: nullcontext(host)) as screen:
        await screen.until(lambda: screen.rows(Panel.SETS))
        await screen.press("tab", "tab", "s", "s")
        assert ["vm-1", "vm-2", "web"] == screen.firsts(Panel.SETS)
        await screen.press("r")
        assert ["web", "vm-2", "vm-1"] == screen.firsts(Panel.SETS)
        await screen.press("slash", *"WEB", "enter")
        await screen.until(lambda: ["web"] == screen.firsts(Panel.SETS))
        assert [] == screen.rows(Panel.QUARANTINE)
        await screen.press("escape")
        await screen.until(lambda: 3 == len(screen.rows(Panel.SETS)))


async def test_it_keeps_nothing(tmp_path: Path) -> None:
    """It has no reference and no subscription: what is freed is back at once while it looks."""
    async with a_service() as service:

        def connect() -> AbstractAsyncContextManager[Session]:
            return connect_allocator(service.path, holder="top", reconnect_within=0)

        async with (
            connect_allocator(service.path, holder="host") as host,
            a_screen(connect) as screen,
        ):
            vm = await host.alloc_set("vm-1", 4)
            pasid = await host.alloc(vm.sid)
            await screen.until(lambda: "vm-1" in screen.firsts(Panel.SETS))
            assert await host.free(pasid)
            holders = {each.holder: each for each in (await host.list_holders()).holders}
            top = holders["top"]
            assert (0, 0, 0) == (top.referenced, top.granted, top.subscribed)


async def test_a_service_that_comes_and_goes() -> None:
    """Without a service it says so, and goes on when there is one."""
    path = Path("/nowhere")

    def connect() -> AbstractAsyncContextManager[Session]:
        return connect_allocator(path, holder="top", reconnect_within=0)

    async with a_screen(connect) as screen:
        await screen.until(lambda: "no allocator answers" in screen.figures)
        await screen.press("w", "e")
        async with a_service() as service:
            path = service.path
            await screen.until(lambda: "1 holder," in screen.figures)
        await screen.until(lambda: "trying again" in screen.figures)


async def test_a_recording(tmp_path: Path) -> None:
    """A recording is looked at from its end, back and on again, and nothing in it is changed."""
    with record(tmp_path / "r"):
        async with a_host():
            pass
    recorded = Recorded(read(tmp_path / "r"))
    async with a_screen(recorded) as screen:
        await screen.until(lambda: f"decision {len(recorded)} of {len(recorded)}" in screen.figures)
        assert [] == screen.rows(Panel.QUARANTINE)
        while not screen.rows(Panel.QUARANTINE):
            await screen.press("left_square_bracket")
            await screen.until(lambda: f"decision {recorded.position} " in screen.figures)
        assert "vm-1" == screen.rows(Panel.QUARANTINE)[0][1]
        await screen.press("e")
        assert not isinstance(screen.app.screen, Question)
        await screen.press("w")
        await screen.until(screen.said)
        await screen.press("escape", "space")
        await screen.until(lambda: len(recorded) == recorded.position)
        await screen.until(lambda: [] == screen.rows(Panel.QUARANTINE))
