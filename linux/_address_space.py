"""What DMA reaches: an address space, and the memory of this process that is mapped there."""

import ctypes
import mmap
from typing import Any, Final

from attrs import define, field

from ioasid.core import InvalidArgument
from ioasid.linux._errors import MappingExists, ObjectGone
from ioasid.linux._iommufd import Iommufd
from ioasid.linux._run import Run
from ioasid.linux._structures import Map, Unmap

__all__ = ["AddressSpace"]

LAST: Final = (1 << 64) - 1


@define(eq=False)
class Space:
    """An address space: its object, its page tables by device, and what is mapped."""

    number: int
    tables: dict[str, int] = field(factory=dict)
    mapped: dict[int, tuple[int, Any]] = field(factory=dict)
    """Length and memory by address; memory must not be freed while a device reaches it."""
    gone: bool = False


class AddressSpace:
    """What DMA with one PASID reaches, or DMA of one device without a PASID.

    It is empty at first, so everything faults. That of a PASID lasts from the first attach of the
    ID to the last detach; its mappings go with it. Gone, it raises `ObjectGone`.
    """

    def __init__(self, space: Space, iommufd: Iommufd, run: Run) -> None:
        self._space: Final = space
        self._iommufd: Final = iommufd
        self._run: Final = run

    async def map(
        self, iova: int, memory: mmap.mmap | bytearray | memoryview, *, write: bool = True
    ) -> None:
        """Let the device reach memory of this process at the address `iova` (0..2^64-1).

        `memory` is writable; it, its length and `iova` are aligned to pages, as an anonymous
        `mmap.mmap` is. It stays allocated as long as it is mapped. Without `write` the device may
        only read. Raises `InvalidArgument`, `MappingExists`, and what the kernel refuses with.
        """
        check_address(iova)
        try:
            held = (ctypes.c_char * memoryview(memory).nbytes).from_buffer(memory)
        except (TypeError, ValueError) as error:
            raise InvalidArgument.of("memory", memory, "a writable buffer") from error
        address, length = ctypes.addressof(held), len(held)
        if not length or length % mmap.PAGESIZE or address % mmap.PAGESIZE:
            raise InvalidArgument.of("memory", memory, "whole pages, as mmap.mmap(-1, n) gives")
        if iova + length > LAST + 1:
            raise InvalidArgument.of("iova", iova, f"room for {length} bytes below 2^64")

        def call() -> None:
            self._check(Map.call, iova)
            if iova in self._space.mapped:
                raise MappingExists(Map.call, f"{iova:#x}")
            self._iommufd.map(self._space.number, iova, address, length, write=write)
            self._space.mapped[iova] = length, held

        await self._run(call)

    async def unmap(self, iova: int) -> None:
        """Undo the `map` of this address; returns when the device does not reach it any more.

        Raises `ObjectGone` for what is not mapped, and what the kernel refuses with; then it is
        still mapped.
        """
        check_address(iova)

        def call() -> None:
            self._check(Unmap.call, iova)
            if iova not in self._space.mapped:
                raise ObjectGone(Unmap.call, f"{iova:#x}")
            length, _ = self._space.mapped[iova]
            self._iommufd.unmap(self._space.number, iova, length)
            del self._space.mapped[iova]

        await self._run(call)

    def _check(self, call: str, iova: int) -> None:
        if self._space.gone:
            raise ObjectGone(call, f"{iova:#x}")


def check_address(iova: object) -> None:
    """Raise `InvalidArgument` for what is no address of a page."""
    if type(iova) is not int or not 0 <= iova <= LAST or iova % mmap.PAGESIZE:
        raise InvalidArgument.of("iova", iova, f"a multiple of {mmap.PAGESIZE}, below 2^64")
