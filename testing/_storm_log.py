"""The library's log during a storm: a crash that nobody planted is a violation."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ioasid.actors import PlantedFault

__all__: list[str] = []

logger = logging.getLogger("ioasid")


class LogWatch(logging.Handler):
    """Takes what the library logs, and objects to bugs, and to crashes that nobody planted."""

    def __init__(self, happened: Counter[str], violated: Callable[[str], None]) -> None:
        super().__init__()
        self._happened = happened
        self._violated = violated

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record, or object to it."""
        text = record.getMessage()
        if "has not acknowledged" in text:
            self._happened["overdue subscribers logged"] += 1
            return
        error = record.exc_info[1] if record.exc_info else None
        if "failed on a request" in text:
            self._violated(f"a bug in a handler: {text} ({error!r})")
            return
        holder = text.partition(" ")[0].partition(":")[0]
        what = "given up" if "gave up" in text else "restarted"
        self._happened[f"{holder} {what}"] += 1
        if not isinstance(error, PlantedFault):
            self._violated(f"a crash that nobody planted: {text} ({error!r})")


@contextmanager
def log_watch(happened: Counter[str], violated: Callable[[str], None]) -> Iterator[None]:
    """Take the log of the library for the length of the scope."""
    watch = LogWatch(happened, violated)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(watch)
    try:
        yield
    finally:
        logger.removeHandler(watch)
        logger.propagate = propagate
