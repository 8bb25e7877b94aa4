"""The command line: what an operator serves, sees and does from a shell.

Answers are tables on a terminal, or JSON with `-o json`, one document or, for `watch`, a line each.
With what a command ends is said in `_saying`.
"""

import errno
import os
import re
import sys
from typing import Any, Final

import click

from ioasid.service import _doing, _looking
from ioasid.service._caller import Caller, Group, output
from ioasid.service._completion import completion
from ioasid.service._connect import DEFAULT_PATH
from ioasid.service._gate import Member
from ioasid.service._offline import draw, journal, probe
from ioasid.service._saying import INTERRUPTED, OUTPUT_LOST, misuse_told, say
from ioasid.service._serving import serve
from ioasid.service._watching import watch

__all__: list[str] = []

FULL: Final = {errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC}
"""What a file says that takes no more."""


class Commands(Group):
    """The commands; one that is given an option of theirs says where that goes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take what all of them are called with."""
        with misuse_told():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        try:
            with misuse_told():
                return self._invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            ours = {name for each in self.params if each.expose_value for name in each.opts}
            command = ctx.invoked_subcommand
            if error.option_name in ours:
                more = f"; it goes before the command: ioasid {error.option_name} ... {command}"
            elif re.fullmatch("-[0-9]", error.option_name):
                more = "; no number is below 0 here, and a name like it goes after --"
            else:
                raise
            said = error.message.removesuffix(".") + more
            raise click.NoSuchOption(error.option_name, said, ctx=error.ctx) from None


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "-s",
    "--socket",
    "path",
    metavar="PATH",
    default=DEFAULT_PATH,
    envvar="IOASID_SOCKET",
    show_default=True,
    help="The socket where the service listens; also $IOASID_SOCKET.",
)
@click.option(
    "--holder",
    metavar="NAME",
    help="Act as the holder of this name. Drivers and tenants have to, unless they only look.",
)
@click.option("--token", help="Act as the tenant whose set has this token.")
@click.version_option(package_name="ioasid")
@click.pass_context
def ioasid(context: click.Context, path: str, holder: str | None, token: str | None) -> None:
    """Serve IOASIDs (PASIDs) to every process of a host, and see and steer who has which.

    \b
    A command ends with the status
      0    if it did what it says,
      1    if it was refused, or a file that it needs is damaged,
      2    if it was called wrongly, or a configuration is wrong,
      3    if what it was given does not exist, be it an ID, a set, a holder or a file,
      4    if it is not permitted,
      5    if no service answers,
      6    if its output could not be written,
      126  if something that it needs is not installed,
      130  if Ctrl-C ended it before it was done.

    \b
    Examples:
      ioasid serve --config /etc/ioasid/config.toml
      ioasid status
      ioasid why 17
      ioasid watch --token vm-1 -o json
    """  # noqa: D301 - the \b is for Click, which keeps the lines below as they are
    context.obj = Caller(path, holder, token, context.obj)


ioasid.params.append(output())
for each in (serve, *_looking.COMMANDS, watch, *_doing.COMMANDS, draw, journal, probe, completion):
    ioasid.add_command(each)


def main(*commands: click.Command, member: Member | None = None) -> None:
    """Run the command line, with what a package above this one adds to it."""
    for each in commands:
        ioasid.add_command(each)
    try:
        try:
            ioasid(prog_name="ioasid", obj=member)
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in FULL:
            raise
        # What is left would be tried again at the end.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - it is for the interpreter
        say(f"ioasid: what there was to say could not be written: {error.strerror}", err=True)
        sys.exit(OUTPUT_LOST)
