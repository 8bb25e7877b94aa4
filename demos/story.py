"""What the short stories have in common: options, a recording, and claims that hold or do not."""

import argparse
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from textwrap import fill
from typing import TypeAlias

import anyio

from demos.terminal import WIDTH, console, end_with_the_pipe
from ioasid.recorder import Recorder, record


class Story:
    """Says what happens, and what has to be true of it."""

    def __init__(self, recorder: Recorder | None, until_it_is_told: ExitStack) -> None:
        self._recorder = recorder
        self._until_it_is_told = until_it_is_told
        self._console = console()
        self.holds = True

    def part(self, text: str) -> None:
        """Begin a part of the story."""
        self._write(f"\n{text}", "bold")
        if self._recorder is not None:
            self._recorder.note(text)

    def say(self, text: str) -> None:
        """Say what happens."""
        self._write(fill(text, WIDTH, initial_indent="  ", subsequent_indent="  "))

    def claim(self, text: str, true: bool) -> None:
        """Say what has to be true, and whether it is."""
        self.holds = self.holds and true
        mark = "✓" if true else "✗ NOT SO:"
        style = "green" if true else "bold red"
        self._write(fill(f"{mark} {text}", WIDTH, subsequent_indent="  "), style)

    def _write(self, text: str, style: str = "") -> None:
        self._console.print(text, style=style, markup=False, soft_wrap=True)

    def end(self) -> None:
        """Record no more: how everything is cleared away is no part of the story."""
        self._until_it_is_told.close()


Tell: TypeAlias = Callable[[Story], Awaitable[None]]


def run(tell: Tell, description: str, arguments: Sequence[str] | None = None) -> int:
    """Tell a story; the exit code is 0 if every claim holds."""
    parser = argparse.ArgumentParser(description=description.split("\n", 1)[0])
    parser.add_argument("--backend", choices=("asyncio", "uvloop", "trio"), default="asyncio")
    parser.add_argument("--record", metavar="FILE", help="write all that happens into a file")
    options = parser.parse_args(arguments)

    print(fill(description.split("\n\n", maxsplit=1)[0].replace("\n", " "), WIDTH))
    logger = logging.getLogger("ioasid")
    with ExitStack() as stack:
        # An actor that crashes in a story does so on purpose.
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
        recorder = None
        if options.record is not None:
            try:
                recorder = stack.enter_context(record(options.record))
            except OSError as error:
                parser.error(str(error))
        story = Story(recorder, stack)
        anyio.run(
            tell,
            story,
            backend="trio" if options.backend == "trio" else "asyncio",
            backend_options={"use_uvloop": True} if options.backend == "uvloop" else {},
        )
    print("\nEvery claim holds." if story.holds else "\nThe story does not hold.", flush=True)
    return 0 if story.holds else 1


def told(tell: Tell, description: str | None) -> None:
    """Tell a story as a program."""
    end_with_the_pipe()
    sys.exit(run(tell, description or ""))
