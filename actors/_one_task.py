"""One task: what runs tasks of its own is entered and left in the same one."""

from collections.abc import Iterator
from contextlib import contextmanager

from ioasid.actors._reply import current_task

__all__: list[str] = []


@contextmanager
def one_task(what: str) -> Iterator[None]:
    """Say clearly, by a RuntimeError, that another task leaves this block than entered it.

    Cancel scopes belong to one task, so an event loop can't do that. What runs in the block has
    ended all the same.
    """
    task = current_task()
    entered = task()
    try:
        yield
    except Exception as error:
        if task() is entered:
            raise
        raise RuntimeError(
            f"{what} was left in another task than it was entered in, as fixtures, setUp and "
            "notebook cells do; it has ended, but let one task enter and leave it: "
            "docs/howto-embed.md shows how"
        ) from error
