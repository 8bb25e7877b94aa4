"""What the live view says and asks above its tables."""

from typing import ClassVar, TypeVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.markup import escape
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from ioasid.service._plain import plain

__all__: list[str] = []

Answer = TypeVar("Answer")


class Dialog(ModalScreen[Answer]):
    """Ends once, however many keys wait for it by then."""

    def end(self, answer: Answer) -> None:
        """End with an answer; a second one is for nobody."""
        if self.is_current:
            _ = self.dismiss(answer)


class Said(Dialog[None]):
    """A text, until a key is pressed."""

    CSS = """
    Said { align: center middle; }
    Said Vertical {
        width: 76; max-width: 96%; height: auto; max-height: 90%; padding: 1 2;
        border: round $accent; background: $surface; overflow-y: auto;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape,enter,w,q,space", "close", "Close"),
    ]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title = title
        self.text = text

    def compose(self) -> ComposeResult:
        """Show the text."""
        with Vertical() as box:
            box.border_title = escape(plain(self._title))
            box.border_subtitle = "Escape closes"
            yield Static(_plain_lines(self.text), markup=False)

    def action_close(self) -> None:
        """Close it by a key."""
        self.end(None)


class Question(Dialog[bool]):
    """A question that is answered with no, unless one says yes."""

    CSS = """
    Question { align: center middle; }
    Question > Vertical {
        width: 72; max-width: 96%; height: auto; padding: 1 2;
        border: round $error; background: $surface;
    }
    Question Horizontal { height: auto; margin-top: 1; align-horizontal: right; }
    Question Button { margin-left: 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("y", "answer(True)", "Yes"),
        ("n,escape,q", "answer(False)", "No"),
    ]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title = title
        self._text = text

    def compose(self) -> ComposeResult:
        """Show the question, with no as what Enter says."""
        with Vertical() as box:
            box.border_title = escape(plain(self._title))
            yield Static(_plain_lines(self._text), markup=False)
            with Horizontal():
                yield Button("No (n)", id="no", variant="primary")
                yield Button("Evict (y)", id="yes", variant="error")

    def on_mount(self) -> None:
        """Let Enter say no."""
        self.query_one("#no").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Answer."""
        self.end(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:
        """Answer by a key."""
        self.end(answer)


def _plain_lines(text: str) -> str:
    return "\n".join(map(plain, text.split("\n")))
