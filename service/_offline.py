"""The commands that ask no service: drawing a recording, and looking at a journal or a machine."""

import sys

import click

from ioasid.core import IoasidError
from ioasid.journal import JournalForeign
from ioasid.journal._look import show
from ioasid.linux import probe as probe_machine
from ioasid.recorder import draw as draw_recording
from ioasid.service._caller import FILE, Caller, Careful, Command, Group
from ioasid.service._saying import REFUSED, fail, torn_ones_told

__all__: list[str] = []


@click.command(cls=Careful)
@click.argument("file", type=FILE)
@click.option(
    "-o",
    "--output",
    required=True,
    type=FILE,
    help="Where to: a page for a browser if this ends in .html, a trace for Perfetto if in .json.",
)
def draw(file: str, output: str) -> None:
    """Draw a recording, as a page or as a trace.

    FILE is what `ioasid serve --record FILE` wrote.

    \b
    Examples:
      ioasid draw serve.jsonl -o page.html
      ioasid draw serve.jsonl -o trace.json
    """  # noqa: D301 - the \b is for Click, which keeps the lines below as they are
    try:
        with torn_ones_told():
            draw_recording(file, output)
    except (IoasidError, OSError) as error:
        fail(error)


@click.command(cls=Command)
@click.pass_obj
def probe(caller: Caller) -> None:
    """Say whether this machine can attach PASIDs.

    If not, it says what is missing, and ends with 1. It opens every VFIO device for a moment,
    unless somebody else has it open; that may reset the device.

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
    sys.exit(0 if found.ready else REFUSED)


@click.group(cls=Group)
def journal() -> None:
    """Look into a journal.

    \b
    Example:
      ioasid journal check /var/lib/ioasid/ioasid.journal
    """  # noqa: D301 - for Click


@journal.command(cls=Command)
@click.argument("file", type=FILE)
@click.option("--requests", is_flag=True, help="Show every request, too, as JSON.")
@click.pass_obj
def check(caller: Caller, file: str, requests: bool) -> None:
    """Show what is in a journal; it changes nothing, and a service may have the journal open.

    Ends with 0 if the journal is sound, and with 1 if it is damaged or the file is no journal.

    \b
    Examples:
      ioasid journal check /var/lib/ioasid/ioasid.journal
      ioasid journal check ioasid.journal -o json | jq .free_pending
    """  # noqa: D301 - the \b is for Click, which keeps the lines below as they are
    try:
        # The process is one of its own, as it has to be.
        is_sound = show(file, requests=requests, as_json=caller.is_json)
    except (OSError, JournalForeign) as error:
        fail(error)
    sys.exit(0 if is_sound else REFUSED)
