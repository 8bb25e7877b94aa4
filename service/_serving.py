"""The command that runs the service."""

import logging
import os
from contextlib import nullcontext
from typing import Any, Final

import click
from attrs import evolve

from ioasid.core import IoasidError
from ioasid.recorder import record
from ioasid.service._caller import FILE, Caller, Careful
from ioasid.service._config import Config, read_config
from ioasid.service._connect import DEFAULT_PATH
from ioasid.service._program import run as run_service
from ioasid.service._saying import fail

__all__: list[str] = []

LEVELS: Final = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
"""Of syslog."""


@click.command(cls=Careful)
@click.option("-c", "--config", "path", type=FILE, help="The configuration, in TOML.")
@click.option(
    "--journal",
    type=FILE,
    help="Keep the state here; made if missing.",
)
@click.option(
    "--record",
    "recording",
    type=FILE,
    help="Record everything here, for `draw`; what the file had is gone.",
)
@click.option("--fleet", metavar="URL", help="Be a host of the fleet that this etcd is for.")
@click.option(
    "--host", metavar="NAME", help="The name of this host in its fleet, if not the machine's."
)
@click.pass_obj
def serve(
    caller: Caller,
    path: str | None,
    journal: str | None,
    recording: str | None,
    fleet: str | None,
    host: str | None,
) -> None:
    """Run the service, until Ctrl-C or SIGTERM.

    Without a configuration file it listens on the socket that `ioasid --socket` names, and lets in
    only the user that runs it. Without a journal, everything is forgotten when it ends. Closing its
    terminal (SIGHUP) ends it as well, unless it has a policy file: then it reads that again.

    \b
    Examples:
      ioasid --socket /tmp/ioasid.sock serve --journal /tmp/ioasid.journal
      ioasid serve --config /etc/ioasid/config.toml
    """  # noqa: D301 - the \b is for Click, which keeps the lines below as they are
    missing: ModuleNotFoundError | None = None
    failure: IoasidError | OSError | None = None
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
    except* ModuleNotFoundError as group:
        missing = _first(group)
    except* IoasidError as group:
        failure = _first(group)
    except* OSError as group:
        failure = error = _first(group)
        if path is None and error.filename == (caller.path or DEFAULT_PATH):
            error.strerror += " (by --socket or $IOASID_SOCKET)"
    if failure is not None:
        # Not in there: up to Python 3.11.3 what is raised there becomes part of a group.
        fail(failure)
    if missing is not None:
        # For who knows which extra brings it, and is told of one error and no group.
        raise missing


def _first(error: Any) -> Any:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
