"""The program behind `python -m ioasid.recorder`.

Exits as `ioasid draw` does: with 0 when the drawing is written, 1 for a recording that is no good,
2 when it was called wrongly, 3 if there is no such file or folder, and 4 if it is not permitted.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence

from ioasid.core import IoasidError
from ioasid.recorder._draw import draw
from ioasid.recorder._errors import TornRecording, UnknownDrawing

__all__: list[str] = []


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ioasid.recorder",
        description="Draw what was recorded.",
        epilog="Example: python -m ioasid.recorder draw recording.jsonl -o page.html",
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("draw", help="make a page or a trace of a recording")
    command.add_argument("file", metavar="FILE", help="what was recorded")
    command.add_argument(
        "-o",
        "--output",
        required=True,
        help="a page for the browser if it ends in .html, a trace for Perfetto if in .json",
    )
    options = parser.parse_args(arguments)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TornRecording)
        try:
            draw(options.file, options.output)
        except IoasidError as error:
            print(f"{parser.prog}: {error}", file=sys.stderr)
            return 2 if isinstance(error, UnknownDrawing) else 1
        except OSError as error:
            print(f"{parser.prog}: {error.filename}: {error.strerror}", file=sys.stderr)
            found = {FileNotFoundError: 3, NotADirectoryError: 3, PermissionError: 4}
            return found.get(type(error), 1)
    for each in caught:
        print(f"{parser.prog}: {each.message}", file=sys.stderr)
    return 0
