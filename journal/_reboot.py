"""What becomes of the state when the host was booted again meanwhile."""

from pathlib import Path
from typing import Final, Literal, TypeAlias

from msgspec.structs import replace

from ioasid.core import Allocator, Snapshot

__all__: list[str] = []

OnReboot: TypeAlias = Literal["keep", "forget"]

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return what names this boot of the host; empty where nothing does, for then none differs."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def forgotten(core: Allocator) -> Allocator:
    """Return what is left of a state when no hardware has anything of it any more.

    IDs, sets and holders go. Groups, limits, reservations, the order and its position stay, and so
    do the counters: no set number, generation or session is ever given out twice.
    """
    return Allocator.restore(_forget(core.snapshot()))


def _forget(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, sets=(), holders=(), subscriptions=(), stages=(), work=())
