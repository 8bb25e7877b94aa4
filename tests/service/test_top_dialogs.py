"""What the live view says and asks: an answer is yes only if somebody says so."""

import importlib.util

import pytest

if importlib.util.find_spec("textual") is None:
    pytest.skip("Textual is not installed: pip install 'ioasid[top]'", allow_module_level=True)

from textual.app import App
from textual.containers import Vertical
from textual.widgets import Static

from ioasid.service._top_dialogs import Question, Said

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Textual runs on asyncio alone."""
    return "asyncio"


@pytest.mark.parametrize(
    ("keys", "answer"),
    [("enter", False), ("n", False), ("escape", False), ("y", True)],
)
async def test_keys(keys: str, answer: bool) -> None:
    """Enter says no; yes is a key of its own."""
    app: App[None] = App()
    answers: list[bool | None] = []
    async with app.run_test() as pilot:
        await app.push_screen(Question("Evict?", "Sure?"), answers.append)
        await pilot.press(keys)
        await pilot.pause()
    assert [answer] == answers


@pytest.mark.parametrize(("button", "answer"), [("#no", False), ("#yes", True)])
async def test_buttons(button: str, answer: bool) -> None:
    """A mouse does as well."""
    app: App[None] = App()
    answers: list[bool | None] = []
    async with app.run_test() as pilot:
        await app.push_screen(Question("Evict?", "Sure?"), answers.append)
        await pilot.click(button)
        await pilot.pause()
    assert [answer] == answers


async def test_it_ends_once() -> None:
    """A key that waited while the first one was heard is no second answer, and closes no more."""
    app: App[None] = App()
    answers: list[bool | None] = []
    async with app.run_test() as pilot:
        question, said = Question("Evict?", "Sure?"), Said("why 1", "it is in use")
        await app.push_screen(question, answers.append)
        question.action_answer(False)
        question.action_answer(True)
        await pilot.pause()
        await app.push_screen(said)
        said.action_close()
        said.action_close()
        await pilot.pause()
        assert 1 == len(app.screen_stack)
    assert [False] == answers


async def test_names_are_no_markup() -> None:
    """A name that looks like markup, or has controls, is shown as it is."""
    app: App[None] = App()
    async with app.run_test():
        for screen in (Said("[/b]", "a\x1b[31m"), Question("[/b]", "a\x1b[31m")):
            await app.push_screen(screen)
            title = screen.query_one(Vertical).border_title
            shown = str(screen.query(Static).first().render())
            assert (r"\[/b]", r"a\x1b[31m") == (title, shown)
