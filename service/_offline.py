"""The commands that ask no service: drawing a recording, and looking at a journal or a machine."""

import sys
import warnings

import click

from ioasid.core import IoasidError
from ioasid.journal._look import main as look
from ioasid.linux import probe as probe_machine
from ioasid.recorder import TornRecording
from ioasid.recorder import draw as draw_recording
from ioasid.service._caller import Caller, Command

__all__: list[str] = []


@click.command()
@click.argument("file", type=click.Path())
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(),
    help="A page for the browser if it ends in .html, a trace for Perfetto if in .json.",
)
def draw(file: str, output: str) -> None:
    """Draw a recording as a page, or as a trace.

    `ioasid serve --record FILE` makes one.

    \b
    Examples:
      ioasid draw serve.jsonl -o page.html
      ioasid draw serve.jsonl -o trace.json
    """  # noqa: D301 - the \b is for Click, which keeps the lines below as they are
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TornRecording)
        try:
            draw_recording(file, output)
        except (IoasidError, OSError) as error:
            click.echo(f"ioasid: {error}", err=True)
            sys.exit(2)
    for each in caught:
        click.echo(f"ioasid: {each.message}", err=True)


@click.command(cls=Command)
@click.pass_obj
def probe(caller: Caller) -> None:
    """Say whether this machine can attach PASIDs.

    And if not, what it lacks. Ends with 0 if they can, and 1 if not. It opens every VFIO device
    that nobody has open for a moment, which may reset it.

    \b
    Examples:
      ioasid probe
      ioasid probe -o json | jq .missing
    """  # noqa: D301 - for Click
    found = probe_machine()
    if caller.is_json:
        caller.show(found)
    else:
        click.echo(str(found))
    sys.exit(0 if found.ready else 1)


@click.group()
def journal() -> None:
    """Look into a journal.

    \b
    Example:
      ioasid journal check /var/lib/ioasid/ioasid.journal
    """  # noqa: D301 - for Click


@journal.command(cls=Command)
@click.argument("file", type=click.Path())
@click.option("--requests", is_flag=True, help="Show every request, as JSON.")
@click.pass_obj
def check(caller: Caller, file: str, requests: bool) -> None:
    """Show what is in a journal, and change nothing; the service may have it open.

    Ends with 0 if it is sound, 1 if it is damaged, and 2 if it can't be read.

    \b
    Example:
      ioasid journal check /var/lib/ioasid/ioasid.journal
    """  # noqa: D301 - the \b is for Click, which keeps the lines below as they are
    # The process is one of its own, as it has to be.
    options = [*(["--requests"] if requests else []), *(["--json"] if caller.is_json else [])]
    sys.exit(look([*options, "--", file]))
