"""Who is at the other end of a Unix socket, as the kernel says; never what a client says."""

import ctypes
import errno
import os
import socket
import struct
from typing import Final

from attrs import frozen

__all__ = ["Credentials"]

PEER_GROUPS: Final = getattr(socket, "SO_PEERGROUPS", 59)
"""Has no name in the standard library before Python 3.14."""
MAX_GROUPS: Final = 1 << 16
_LIBRARY: Final = ctypes.CDLL(None, use_errno=True)


@frozen
class Credentials:
    """Whose process a connection was made by; `pid` is for logs, for it may be another's by now."""

    uid: int
    gids: frozenset[int]
    pid: int


def credentials_of(descriptor: int) -> Credentials:
    """Return who connected a socket. Raises OSError if it is none or not connected."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=os.dup(descriptor)) as sock:
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        # Numbers of users and groups are unsigned.
        pid, uid, gid = struct.unpack("iII", found)
        groups = _groups(sock)
    members = struct.unpack(f"{len(groups) // 4}I", groups)
    return Credentials(uid, frozenset((gid, *members)), pid)


def _groups(sock: socket.socket, room: int = 1 << 6) -> bytes:
    # By the library itself: Python before 3.14 asks for no more than 1,024 bytes.
    found = ctypes.create_string_buffer(4 * room)
    size = ctypes.c_uint(4 * room)
    ask = _LIBRARY.getsockopt
    if not ask(sock.fileno(), socket.SOL_SOCKET, PEER_GROUPS, found, ctypes.byref(size)):
        return found.raw[: size.value]
    error = ctypes.get_errno()
    if error == errno.ERANGE and room < MAX_GROUPS:
        return _groups(sock, MAX_GROUPS)
    if error == errno.ENOPROTOOPT:
        # The kernel is older than that: then it is the main group alone.
        return b""
    raise OSError(error, os.strerror(error))
