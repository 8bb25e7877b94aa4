"""How many files the process may have open: each connection is one, so it takes all it may have."""

import logging
import resource
from typing import Final

__all__: list[str] = []

logger = logging.getLogger("ioasid.service")

BESIDES: Final = 64
"""Files that a service has open besides its connections, with some to spare."""


def raise_limit(connections: int) -> int:
    """Let the process open as many files as its hard limit allows, and return how many these are.

    Where they are too few for so many connections, the log says so, and what to do.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _less(soft, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            logger.warning("the limit of open files stays %d: %s", soft, error)
        else:
            soft = hard
    if _less(soft, connections + BESIDES):
        logger.warning(
            "%d files may be open, too few for %d connections: allow %d, with LimitNOFILE= in the "
            "unit or `ulimit -Hn`, or lower `connections` in [limits]",
            soft,
            connections,
            connections + BESIDES,
        )
    return soft


def _less(one: int, other: int) -> bool:
    if one == resource.RLIM_INFINITY:
        return False
    return other == resource.RLIM_INFINITY or one < other
