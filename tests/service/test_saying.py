"""What commands say, how they ask, and how they end."""

import errno
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ioasid.core import (
    AllocatorClosed,
    GroupExists,
    HolderLive,
    InvalidArgument,
    IoasidError,
    IoasidFreePending,
    QuotaBelowUse,
    QuotaExceeded,
    SessionEnded,
    SetFreePending,
    SetFrozen,
    SetRecord,
    SetState,
    TokenInUse,
    TokenType,
    UnknownHolder,
    UnknownSet,
    WouldDeadlock,
    _check,
)
from ioasid.service import ConnectionFailed, OutcomeUnknown, RefusedByServer
from ioasid.service._command import ioasid
from ioasid.service._saying import NAMED, confirm, said, status_of
from tests.recorder.recordings import of_a_hang
from tests.service.programs import call


def commands(name: str, command: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """The commands of the service, groups of them included, and how each is called."""
    yield (), command
    for each, below in command.commands.items() if isinstance(command, click.Group) else ():
        if "fleet" not in (below.callback or call).__module__:
            yield from (((each, *words), found) for words, found in commands(each, below))


ALL = list(commands("ioasid", ioasid))

FILES = {
    (("serve",), "path"): ("-s", "{at}/s", "serve", "-c", "{file}"),
    (("serve",), "journal"): ("-s", "{at}/s", "serve", "--journal", "{file}"),
    (("serve",), "recording"): ("-s", "{at}/s", "serve", "--record", "{file}"),
    (("draw",), "file"): ("draw", "{file}", "-o", "{at}/page.html"),
    (("draw",), "output"): ("draw", "{at}/recording", "-o", "{file}.html"),
    (("top",), "recording"): ("top", "--recording", "{file}"),
    (("journal", "check"), "file"): ("journal", "check", "{file}"),
    # Files that no option names.
    (("serve",), "policy"): ("serve", "-c", "{at}/config"),
    (("serve",), "socket"): ("-s", "{file}", "serve"),
}
"""How each command is called with a file."""


def called(folder: Path, *words: str, file: Path) -> "tuple[int, str, str]":
    """Call a command with a file; beside it there are a recording and a configuration."""
    of_a_hang(folder / "recording")
    (folder / "config").write_text(f'socket = "{folder}/s"\npolicy = "{file}"\n')
    return call(*(each.format(at=folder, file=file) for each in words))


def test_every_file_is_among_them() -> None:
    """A new option that takes a file is tested below; one that is forbidden is no wrong call."""
    found = {
        (words, each.name)
        for words, command in ALL
        for each in command.params
        if isinstance(each.type, click.Path)
        and not (each.type.exists or each.type.readable or each.type.writable)
    }
    assert found == FILES.keys() - {(("serve",), "policy"), (("serve",), "socket")}


@pytest.mark.parametrize("case", FILES)
def test_a_file_in_a_folder_that_is_not_there(
    case: "tuple[tuple[str, ...], str]", tmp_path: Path
) -> None:
    """It does not exist, for every command: one line, and the status for that."""
    status, out, error = called(tmp_path, *FILES[case], file=tmp_path / "gone" / "file")
    assert (3, "") == (status, out)
    line = error.splitlines()[-1]
    assert line.startswith("ioasid: ")
    assert "gone" in line


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ((("serve",), "path"), 2),
        ((("serve",), "policy"), 2),
        ((("serve",), "journal"), 1),
        ((("draw",), "file"), 1),
        ((("top",), "recording"), 1),
        ((("journal", "check"), "file"), 1),
        ((("serve",), "socket"), 1),
    ],
)
def test_a_file_of_another_kind(
    case: "tuple[tuple[str, ...], str]", expected: int, tmp_path: Path
) -> None:
    """A configuration that is wrong is a wrong call; all else is refused."""
    (tmp_path / "file").write_text("a text that is longer than the head of a database " * 99)
    status, out, error = called(tmp_path, *FILES[case], file=tmp_path / "file")
    assert (expected, "") == (status, out)
    assert "Traceback" not in error


def test_statuses() -> None:
    """An errno is one status, whoever says it; what is refused for now is no wrong call."""
    for code, expected in (
        (errno.ENOENT, 3),
        (errno.ENOTDIR, 3),
        (errno.EACCES, 4),
        (errno.EPERM, 4),
        (errno.EISDIR, 1),
        (errno.EIO, 1),
    ):
        assert expected == status_of(OSError(code, os.strerror(code)))
    assert 3 == status_of(UnknownSet(3))
    assert 2 == status_of(InvalidArgument("quota", "0", "more"))
    assert 1 == status_of(QuotaBelowUse(0, 1, 2))
    assert 1 == status_of(SessionEnded(3))
    assert 5 == status_of(AllocatorClosed("was shut down"))
    assert 5 == status_of(ConnectionFailed("/s", "it is no socket"))
    assert 4 == status_of(RefusedByServer("TooFar", "EPERM", "not you"))
    assert 1 == status_of(RefusedByServer("TooFar", "EFAR", "not that far"))


# -- empty text -----------------------------------------------------------------------------------


def sample(parameter: click.Parameter) -> str:
    """Something that a parameter takes."""
    return parameter.type.choices[0] if isinstance(parameter.type, click.Choice) else "1"


EMPTY = [
    pytest.param(words, command, each, id=" ".join((*words, each.opts[0])))
    for words, command in ALL
    for each in command.params
    if not (isinstance(each, click.Option) and (each.is_flag or each.count))
]


@pytest.mark.parametrize(("words", "command", "tested"), EMPTY)
def test_empty_text_is_no_value(
    words: tuple[str, ...], command: click.Command, tested: click.Parameter
) -> None:
    """A variable that nobody set is no option left out, for no option and no argument."""
    given = list(words)
    for each in command.params:
        if each is tested or each.required:
            value = "" if each is tested else sample(each)
            given += [each.opts[0], value] if isinstance(each, click.Option) else [value]
    if not words:
        given.append("status")
    socket = () if tested.name == "path" and not words else ("-s", "/nowhere/s")
    status, out, error = call(*socket, *given)
    assert (2, "") == (status, out)
    assert re.search("it is empty|invalid value", error), error


def test_an_empty_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is none that is not set; an option goes before it."""
    monkeypatch.setenv("IOASID_SOCKET", "")
    status, _, error = call("status")
    assert (2, True) == (status, "$IOASID_SOCKET is empty; give it a value, or unset it" in error)
    assert 5 == call("-s", "/nowhere/s", "status")[0]


# -- questions ------------------------------------------------------------------------------------


@click.command()
def asking() -> None:
    """Ask something."""
    confirm("Free it?")
    click.echo("freed")


@pytest.mark.parametrize(
    ("typed", "status", "out", "error"),
    [
        ("y\n", 0, "freed\n", ""),
        ("n\n", 1, "", "ioasid: the answer was no, and nothing was done\n"),
        ("\n", 1, "", "ioasid: the answer was no, and nothing was done\n"),
        (
            *("", 2, ""),
            "ioasid: nobody answered, and nothing was done; --yes does it without asking\n",
        ),
    ],
)
def test_a_question(typed: str, status: int, out: str, error: str) -> None:
    """It is not in what a script reads; no answer is a wrong call, which says how to do without."""
    done = CliRunner().invoke(asking, input=typed)
    assert (status, True) == (done.exit_code, done.stdout.lstrip(" ").endswith(out))
    assert "Free it?" not in done.stdout
    assert done.stderr.startswith("Free it? [y/N]:")
    assert done.stderr.endswith(error)
    assert "Aborted" not in done.stderr


class Interrupted(io.BytesIO):
    """A terminal at which Ctrl-C is typed."""

    def read1(self, size: int | None = -1, /) -> bytes:
        """Be interrupted, unless it is only asked what it is."""
        if size == 0:
            return b""
        raise KeyboardInterrupt

    read = read1


def test_a_question_that_is_interrupted() -> None:
    """Ctrl-C at a question ends a command as anywhere else."""
    done = CliRunner().invoke(asking, input=Interrupted())
    assert (130, "Free it? [y/N]:") == (done.exit_code, done.stderr.strip())


# -- words ----------------------------------------------------------------------------------------


def shown(error: IoasidError, named: SetRecord | None = None, holder: str | None = None) -> str:
    """What a command says of an error, which has named a set."""
    with click.Context(ioasid, info_name="ioasid") as context:
        context.params["holder"] = holder
        context.meta[NAMED] = named
        return said(error)


def refusal(check: Callable[[], object]) -> InvalidArgument:
    """What an argument is refused with."""
    with pytest.raises(InvalidArgument) as caught:
        check()
    return caught.value


REFUSALS = [
    AllocatorClosed("was shut down"),
    GroupExists("team-1"),
    HolderLive("me"),
    refusal(lambda: _check.count(0, "quota")),
    refusal(lambda: _check.data(2**64)),
    refusal(lambda: _check.ioasid(-1)),
    refusal(lambda: _check.name("", "token")),
    refusal(lambda: _check.seconds(0, "deadline")),
    IoasidFreePending(17),
    OutcomeUnknown("Alloc"),
    QuotaBelowUse(3, 1, 2),
    QuotaExceeded(3, 1, 1, 1),
    SessionEnded(5),
    SetFreePending(3),
    SetFrozen(3, "FROZEN"),
    TokenInUse("vm-1", 3),
    UnknownHolder("me"),
    UnknownSet(3),
    WouldDeadlock("me", 17, "it holds a reference itself"),
]


@pytest.mark.parametrize("holder", [None, "me"])
@pytest.mark.parametrize("error", REFUSALS, ids=lambda each: type(each).__name__)
def test_no_python_at_a_shell(error: IoasidError, holder: str | None) -> None:
    """What there is to do is a command, and no call of a library."""
    text = shown(error, holder=holder)
    assert not re.search(r"\w\(|\b[a-z]+_[a-z]+\b|\bNone\b|\bint\b|\bstr\b|open a new", text), text


def test_a_set_is_named_as_it_was_typed() -> None:
    """By its token, if the command knows it, and by its number as commands take it otherwise."""
    vm = SetRecord(3, r"vm-\1", TokenType.MM, 1, 1, SetState.ACTIVE)
    assert r"set vm-\1 (#3) has allocated 1 of 1," in shown(QuotaExceeded(3, 1, 1, 1), vm)
    assert "set #3 has allocated 1 of 1," in shown(QuotaExceeded(3, 1, 1, 1))
    assert "token 'set 4' belongs to set #4" in shown(TokenInUse("set 4", 4), vm)
