"""The command that runs the service."""

import logging
import os
import sys
from contextlib import nullcontext
from typing import Any, Final

import click
from attrs import evolve

from ioasid.core import IoasidError
from ioasid.recorder import record
from ioasid.service._caller import REFUSED, Caller, fail, say
from ioasid.service._config import Config, read_config
from ioasid.service._connect import DEFAULT_PATH
from ioasid.service._program import run as run_service

__all__: list[str] = []

LEVELS: Final = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
"""Of syslog."""


@click.command()
@click.option("-c", "--config", "path", type=click.Path(), help="A configuration file, in TOML.")
@click.option("--journal", type=click.Path(), help="Keep the state in this file.")
@click.option("--record", "recording", type=click.Path(), help="Record everything, for `draw`.")
@click.option("--fleet", metavar="URL", help="Be a host of the fleet whose store is this etcd.")
@click.option("--host", help="The name of this host in its fleet; the machine's unless told.")
@click.pass_obj
def serve(
    caller: Caller,
    path: str | None,
    journal: str | None,
    recording: str | None,
    fleet: str | None,
    host: str | None,
) -> None:
    """Run the service until it is told to end.

    Without a configuration it listens on --socket, for the user that runs it alone. Without a
    journal, what it serves is forgotten when it ends. Ctrl-C ends it, and so does closing its
    terminal (SIGHUP), unless there is a policy file, which is then read again.

    \b
    Examples:
      ioasid --socket /tmp/ioasid.sock serve --journal /tmp/ioasid.journal
      ioasid serve --config /etc/ioasid/config.toml
    """  # noqa: D301 - the \b is for Click, which keeps the lines below as they are
    try:
        config = Config(socket=caller.path or DEFAULT_PATH) if path is None else read_config(path)
        if journal is not None:
            config = evolve(config, journal=journal)
        if fleet is not None:
            config = evolve(config, fleet=fleet)
        if host is not None:
            config = evolve(config, host=host)
        if "JOURNAL_STREAM" in os.environ:
            # The manager's journal takes the level from the number in front.
            for name, number in LEVELS.items():
                logging.addLevelName(getattr(logging, name), f"<{number}>{name}")
        logging.basicConfig(level=config.log, format="%(levelname)s %(name)s: %(message)s")
        with nullcontext() if recording is None else record(recording):
            run_service(config, caller.member)
    except* IoasidError as group:
        fail(_first(group))
    except* OSError as group:
        error = _first(group)
        named = path is None and error.filename == (caller.path or DEFAULT_PATH)
        how = " (by --socket or $IOASID_SOCKET)" if named else ""
        say(f"ioasid: {error.filename or path}: {error.strerror}{how}", err=True)
        sys.exit(REFUSED)


def _first(error: Any) -> Any:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
