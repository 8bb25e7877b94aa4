"""What all demos do with a terminal: 80 columns, colours where they are seen, and quiet pipes."""

import signal
from typing import Final

from rich.console import Console

WIDTH: Final = 80


def console() -> Console:
    """Return where to write: in colours on a terminal, and in a pipe if FORCE_COLOR is set."""
    return Console(width=WIDTH, highlight=False)


def end_with_the_pipe() -> None:
    """End without a word when nobody reads any more, as in `demo | head`."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
