"""Doing again what a journal that can't be written refuses, until it can be."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from anyio import sleep

from ioasid.core import NotCommitted

__all__: list[str] = []

PAUSE: Final = 1.0
"""Seconds between two attempts."""


async def until_kept(work: Callable[[], Awaitable[Any]]) -> None:
    """Do what has to be done in the end, and what may be begun anew wherever it was refused."""
    while True:
        try:
            await work()
            return
        except NotCommitted:
            await sleep(PAUSE)
