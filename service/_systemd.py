"""What a service manager says and is told: a socket, where to keep state, and when it is ready.

The protocol is systemd's, of which a few lines are all that is needed (sd_listen_fds(3),
sd_notify(3), systemd.exec(5)); without a service manager nothing happens.
"""

import os
import socket
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Final

from ioasid.core import InvalidArgument

__all__: list[str] = []

FIRST: Final = 3
"""The number of the first descriptor that is passed."""


def passed_socket(environment: MutableMapping[str, str] = os.environ) -> socket.socket | None:
    """Return the listening Unix socket that a service manager passed, `None` if it passed nothing.

    What says so is taken out of the environment, so that no child takes it for its own. Raises
    `InvalidArgument` for more than one, or one of another kind.
    """
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count:
        return None
    if count != "1":
        raise InvalidArgument("LISTEN_FDS", count, "one socket in the socket unit")
    os.set_inheritable(FIRST, False)
    try:
        sock = socket.socket(fileno=FIRST)
    except OSError as error:
        raise InvalidArgument("LISTEN_FDS", error.strerror or "", "a socket") from None
    if sock.family != socket.AF_UNIX or not sock.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        sock.close()
        raise InvalidArgument("LISTEN_FDS", "another socket", "a Unix socket that listens")
    return sock


def state_directory(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder that a service manager gives to keep state in, the first of several."""
    first = environment.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(first) if first else None


def notify(state: str, environment: MutableMapping[str, str] = os.environ) -> bool:
    """Tell the service manager a state, such as `READY=1`; returns whether there is one to tell."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        # The abstract name space.
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(state.encode(), address)
        except OSError:
            # The manager is gone: nothing depends on its knowing.
            return False
    return True
