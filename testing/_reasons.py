"""Why a schedule failed, in words: what was raised, where, and out of what."""

from collections.abc import Sequence
from pathlib import PurePath
from textwrap import wrap
from traceback import walk_tb
from types import FrameType
from typing import Final

__all__ = ["chosen_in_words", "kind_of", "leaves_of", "place_of", "reason_of"]

LOOPS: Final = frozenset(("anyio", "asyncio", "trio", "contextlib.py"))
"""Whose places say nothing."""


def leaves_of(error: BaseException) -> tuple[BaseException, ...]:
    """Return what is in a group, and in the groups in it; of any other error, the error."""
    if not isinstance(error, BaseExceptionGroup):
        return (error,)
    return tuple(leaf for each in error.exceptions for leaf in leaves_of(each))


def kind_of(error: BaseException) -> str:
    """Return the names of what was raised, of a group of everything in it, each once."""
    return " and ".join(sorted({type(each).__name__ for each in leaves_of(error)}))


def reason_of(error: BaseException) -> str:
    """Return what an error says, where it was raised, and what it came of; of a group, of each."""
    leaves = leaves_of(error)
    if len(leaves) == 1:
        return _one(leaves[0])
    each = "".join(f"\n- {_one(leaf)}" for leaf in leaves).replace("\n", "\n    ")
    return f"{len(leaves)} errors at once:{each}"


def chosen_in_words(chosen: Sequence[str]) -> list[str]:
    """Return the lines of a report that say what a scenario chose, none if it chose nothing."""
    text = ", ".join(chosen)
    return wrap(f"choose took {text}", 96, initial_indent="  ", subsequent_indent="    ") * bool(
        text
    )


def place_of(frame: FrameType, line: int) -> str:
    """Return a place as people write it, empty for one in an event loop."""
    parts = PurePath(frame.f_code.co_filename.replace("\\", "/")).parts
    if LOOPS & {*parts}:
        return ""
    return f"{'/'.join(parts[-2:])}:{line}, {frame.f_code.co_name}"


def _one(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error!s}".rstrip(": ")
    where = _raised_at(error)
    if where:
        text += f"\n      at {where}"
    if error.__cause__ is not None and error.__cause__ is not error:
        text += f"\n    from {reason_of(error.__cause__)}"
    return text


def _raised_at(error: BaseException) -> str:
    # The innermost place that is not the library's: what asked for it, rather than what refused.
    ours = theirs = ""
    for frame, line in walk_tb(error.__traceback__):
        place = place_of(frame, line)
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] == "ioasid":
            ours = place or ours
        else:
            theirs = place or theirs
    return theirs or ours
