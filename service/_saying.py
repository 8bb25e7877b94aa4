"""What commands say, and how they end.

A command ends with 0 when it did what it says; with 1 when it was refused, by the service or for
what is in a file, 2 when it was called wrongly, 3 when what it names does not exist, a file too, 4
when it is not permitted, 5 when no service answers, 6 when what there was to say could not be
written, 126 when what it needs is not installed, and 130 when Ctrl-C ended it before.
"""

import errno
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import click

from ioasid.actors import RequestFailed
from ioasid.core import (
    AllocatorClosed,
    GroupExhausted,
    GroupExists,
    HolderLive,
    InvalidArgument,
    InvalidRequest,
    IoasidError,
    IoasidFreePending,
    NotCommitted,
    QuotaBelowUse,
    QuotaExceeded,
    SessionEnded,
    SetFreePending,
    SetFrozen,
    SetRecord,
    TokenInUse,
    UnknownGroup,
    UnknownHolder,
    UnknownSet,
    UnknownToken,
    WouldDeadlock,
)
from ioasid.journal import JournalDamaged
from ioasid.recorder import TornRecording
from ioasid.service._errors import (
    ConnectionFailed,
    OutcomeUnknown,
    PermissionDenied,
    RefusedByServer,
)
from ioasid.service._plain import fitted, plain

__all__: list[str] = []

REFUSED: Final = 1
CALLED_WRONGLY: Final = 2
NOT_FOUND: Final = 3
NOT_PERMITTED: Final = 4
NO_SERVICE: Final = 5
OUTPUT_LOST: Final = 6
INTERRUPTED: Final = 128 + signal.SIGINT

STATUSES: Final = {
    errno.ENOENT: NOT_FOUND,
    errno.ENOTDIR: NOT_FOUND,
    errno.ESTALE: NOT_FOUND,
    errno.EPERM: NOT_PERMITTED,
    errno.EACCES: NOT_PERMITTED,
    errno.EINVAL: CALLED_WRONGLY,
}
"""By errno, whether the service or the file system says it."""

NAMED: Final = "ioasid.set"
"""Where a context has the set that its command named."""


def say(text: str, *, err: bool = False) -> None:
    """Print a text, on a terminal in lines that fit it."""
    text = plain(text)
    if (sys.stderr if err else sys.stdout).isatty():
        text = fitted(text, shutil.get_terminal_size().columns)
    click.echo(text, err=err)


@contextmanager
def torn_ones_told() -> Iterator[None]:
    """Say of a recording that it is torn, and not as Python would."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TornRecording)
        yield
    for each in caught:
        say(f"ioasid: {each.message}", err=True)


def confirm(question: str) -> None:
    """Ask a question, and end the command unless it is answered with yes.

    A question that nobody can answer, from no terminal for instance, was not to be asked.
    """
    try:
        is_sure = click.confirm(plain(question), err=True)
    except click.Abort as error:
        click.echo(err=True)
        if isinstance(error.__context__, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        say("ioasid: nobody answered, and nothing was done; --yes does it without asking", err=True)
        sys.exit(CALLED_WRONGLY)
    if not is_sure:
        say("ioasid: the answer was no, and nothing was done", err=True)
        sys.exit(REFUSED)


_MADE: Final = "`ioasid alloc-set` makes one, `ioasid sets` lists those that there are"
TO_TYPE: Final[dict[type[IoasidError], str]] = {
    AllocatorClosed: "start `ioasid serve` again, then repeat this",
    GroupExhausted: "free or shrink what is in it, or `ioasid adjust-group` it",
    GroupExists: "`ioasid adjust-group` it, or choose another name",
    HolderLive: "end that one, `ioasid evict` it, or choose another name with `ioasid --holder`",
    IoasidFreePending: "`ioasid why` says whom it waits for",
    JournalDamaged: "copy its files away, see `ioasid journal check`, and begin with a backup",
    OutcomeUnknown: "look at what there is, as with `ioasid sets`, and then repeat this",
    QuotaBelowUse: "free some and wait until they are back, as `ioasid free --wait` does",
    QuotaExceeded: "free some and wait until they are back, or `ioasid adjust-set` it",
    RequestFailed: "the log of the service has more; look at what there is, and then repeat this",
    SessionEnded: "its holder was evicted; look at what there is, and then repeat this",
    SetFrozen: "wait until it has moved, see `ioasid fleet moves`, or `ioasid free-set` it",
    SetFreePending: "wait until all of it is back, as `ioasid set` shows, and make it again",
    TokenInUse: "`ioasid free-set` that with --wait, or choose another token",
    UnknownGroup: "`ioasid alloc-group` makes it, `ioasid groups` lists those that there are",
    UnknownHolder: "it left or never came, `ioasid holders` lists those that there are",
    UnknownSet: _MADE,
    UnknownToken: _MADE,
    WouldDeadlock: "leave out --wait, or choose another name with `ioasid --holder`",
}
"""What to do at a shell, where an error says behind its last semicolon what to call."""


_ASKED: Final = "or ask an operator, where the policy gives you no group"
_MADE_BY: Final = (
    "`ioasid sets` lists yours; `ioasid alloc-set` with --group makes it in the group that the "
    f"policy gives you, {_ASKED}"
)
TO_TYPE_BY_OTHERS: Final[dict[type[IoasidError], str]] = TO_TYPE | {
    HolderLive: "end that one, or choose another name with `ioasid --holder`",
    UnknownSet: _MADE_BY,
    UnknownToken: _MADE_BY,
    UnknownGroup: "ask an operator to make it",
    GroupExhausted: "free or shrink what is in it, or ask an operator for more",
    QuotaExceeded: f"free some and wait until they are back, `ioasid adjust-set` it, {_ASKED}",
}
"""The same for who came under a name or with a token, as everybody has to who is no operator."""


def named(found: SetRecord) -> str:
    """Return what a set is called: its token, and its number as in `#3`."""
    return f"#{found.sid}" if found.token is None else f"{found.token} (#{found.sid})"


def said(error: IoasidError) -> str:
    """Return what an error says, in the words of a shell.

    It has what to type in place of what to call, and sets have the names that commands have.
    """
    context = click.get_current_context(silent=True)
    given = {} if context is None else context.find_root().params
    is_other = given.get("holder") is not None or given.get("token") is not None
    advice = (TO_TYPE_BY_OTHERS if is_other else TO_TYPE).get(type(error))
    text = f"{error.code}: {error.told(_named_template(error))}"
    if isinstance(error, NotCommitted):
        return f"{text}; what only looks goes on, `ioasid watch` does not, for it subscribes"
    if isinstance(error, PermissionDenied) and context is not None:
        what, _, only = error.what.partition(", only ")
        name = what.partition(" ")[0]
        if name == "send":
            text = text.replace(error.what, f"run `{context.command_path}`", 1)
            advice = "run it as an operator, a role that the policy file gives"
        elif name == "subscribe":
            advice = f"give the token of its set, as in `{context.command_path} --token vm-1`"
        elif only:
            # What was not given was never typed: what to give comes first.
            option = "holder" if name == "be" else "token"
            need = f"may not {what}" if given.get(option) is not None else "needs it"
            choice = only.removeprefix("with ")
            return f"{error.code}: give `ioasid --{option}` {choice}; a {error.role} {need}"
    return text if advice is None else f"{text.rpartition('; ')[0]}; {advice}"


def _named_template(error: IoasidError) -> str:
    # A set has the name that the command gave it.
    sid = getattr(error, "sid", None)
    context = click.get_current_context(silent=True)
    found: SetRecord | None = None if context is None else context.meta.get(NAMED)
    whole = "set {sid}{token}"
    token = getattr(error, "token", "") if whole in error.template else ""
    if found is not None and found.sid == sid:
        name = named(found)
    else:
        name = f"{token} (#{sid})" if token else f"#{sid}"
    escaped = f"set {name.replace('{', '{{').replace('}', '}}')}"
    return error.template.replace(whole, escaped).replace("set {sid}", escaped)


def status_of(error: IoasidError | OSError) -> int:
    """Return the status that says of which kind an error is."""
    if isinstance(error, ConnectionFailed | AllocatorClosed):
        return NO_SERVICE
    is_state = isinstance(error, InvalidRequest) and not isinstance(error, InvalidArgument)
    if is_state or isinstance(error, SessionEnded):
        # Right in itself, and refused because of what there is: another time it may do.
        return REFUSED
    code = error.errno
    if isinstance(error, RefusedByServer):
        code = getattr(errno, error.name, code)
    return STATUSES.get(code or 0, REFUSED)


@contextmanager
def misuse_told() -> Iterator[None]:
    """Say how a command was called wrongly, as all that it says, and end it with that status."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        if error.ctx is not None:
            click.echo(error.ctx.get_usage(), err=True)
            click.echo(f"Try '{error.ctx.command_path} --help' for help.\n", err=True)
        text = error.format_message()
        say(f"ioasid: {text[:1].lower()}{text[1:].removesuffix('.')}", err=True)
        sys.exit(CALLED_WRONGLY)


def fail(error: IoasidError | OSError) -> NoReturn:
    """Say what went wrong, and end with the status that says of which kind it is."""
    match error:
        case OSError():
            place = "" if error.filename is None else f"{error.filename}: "
            text = f"{place}{error.strerror or error}"
        case RefusedByServer():
            # By a package above this one: what it says is all that is to be known.
            text = f"{error.name}: {error.reason}"
        case _:
            text = said(error)
    say(f"ioasid: {text}", err=True)
    sys.exit(status_of(error))
