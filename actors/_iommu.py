"""The IOMMU as its driver has it: what is programmed, and the tables that take it.

`PasidTables` is all that a driver needs of an IOMMU: the width of a device, attach, detach, and
what is attached. `ModelTables` is one for which no hardware is needed; it is as careless as a
kernel is, so whoever is safe with it takes care by itself.
"""

from collections.abc import Collection
from typing import Protocol

from attrs import define, field, frozen

from ioasid.actors._errors import AlreadyProgrammed, PasidTooWide, PasidZero, UnknownDevice

__all__ = ["Entry", "Iommu", "ModelTables", "PasidTables"]


@frozen
class Entry:
    """An entry of a PASID table: the address space that DMA with this PASID reaches."""

    owner: str
    """Whose memory it is: "vm-1", "process 4711"."""
    gpasid: int | None
    """The guest's PASID; `None` for a process of the host."""
    generation: int
    """The life of the ID that it is for; another life has nothing to do with it."""
    binds: int = 1
    """How often it was bound: a guest once, a process any number of times."""


class PasidTables(Protocol):
    """The PASID tables of an IOMMU, one per device, as whoever programs them reaches them.

    A method that raises an `IoasidError` has changed nothing; who is cancelled meanwhile gets the
    call finished all the same. One call at a time.
    """

    async def open(self, device: str, pasid_bits: int) -> int:
        """Take a device into use; returns the width of its PASIDs, at most `pasid_bits` (1..20)."""
        ...

    async def close(self, device: str) -> None:
        """Let a device go, and whatever is attached there; nothing is said of one that is gone."""
        ...

    async def attach(self, device: str, ioasid: int, entry: Entry) -> None:
        """Let DMA of a device with this PASID reach the address space of an entry.

        An entry that is there is replaced: see `Iommu.attach`.
        """
        ...

    async def detach(self, device: str, ioasid: int) -> None:
        """Let DMA with this PASID fault; returns when nothing of the entry is cached any more.

        Nothing is said of one that is not attached.
        """
        ...

    def attached(self, device: str) -> Collection[int]:
        """Return the PASIDs that are attached, as far as anybody knows."""
        ...


@define(eq=False)
class ModelTables:
    """PASID tables without hardware, which behave as a kernel's do.

    A second attach replaces what the PASID meant, silently; a detach of what is not attached
    succeeds; a device without PASIDs (of 0 bits) takes any attach, and does nothing. A PASID that a
    device with PASIDs does not have raises `PasidTooWide`.
    """

    entries: dict[str, dict[int, Entry]] = field(factory=dict)
    """What DMA of a device reaches, by its PASID."""
    pasid_bits: dict[str, int] = field(factory=dict)
    """The width of each device's PASIDs."""
    replaced: int = 0
    """How often an attach replaced something."""

    async def open(self, device: str, pasid_bits: int) -> int:
        """Make a table; the device has PASIDs of as many bits as it is asked to have."""
        self.entries.setdefault(device, {})
        return self.pasid_bits.setdefault(device, pasid_bits)

    async def close(self, device: str) -> None:
        """Take a device's table away, with everything in it."""
        self.entries.pop(device, None)
        self.pasid_bits.pop(device, None)

    async def attach(self, device: str, ioasid: int, entry: Entry) -> None:
        """Set an entry, whatever was there. Raises `UnknownDevice` and `PasidTooWide`."""
        if device not in self.entries:
            raise UnknownDevice(device)
        bits = self.pasid_bits[device]
        if not bits:
            return
        if ioasid >> bits:
            raise PasidTooWide(device, ioasid, bits)
        self.replaced += ioasid in self.entries[device]
        self.entries[device][ioasid] = entry

    async def detach(self, device: str, ioasid: int) -> None:
        """Remove an entry, if it is there."""
        self.entries.get(device, {}).pop(ioasid, None)

    def attached(self, device: str) -> Collection[int]:
        """Return the PASIDs that have an entry."""
        return self.entries.get(device, {}).keys()


@define(eq=False)
class Iommu:
    """What the IOMMU driver knows to be programmed. It outlives a crash of the driver.

    It takes the care that the tables do not: a PASID is attached once or refused, never replaced,
    and PASID 0, which means the device itself, never at all.
    """

    tables: dict[str, dict[int, Entry]] = field(factory=dict)
    """The entries of each device, by their ID; what is attached and not here can't be used."""
    pasid_bits: dict[str, int] = field(factory=dict)
    """The width of each device's PASIDs."""
    closed: set[str] = field(factory=set)
    """Devices that are being removed: they are bound no more."""
    flushes: int = 0
    """How often caches were flushed so far."""
    hardware: PasidTables = field(factory=ModelTables, kw_only=True)
    """The tables that are programmed."""

    def translate(self, device: str, ioasid: int) -> Entry | None:
        """Return the entry that a DMA request of a device hits, `None` for a fault."""
        return self.tables.get(device, {}).get(ioasid)

    def last_of(self, device: str) -> int:
        """Return the last ID that fits into a device's PASIDs. Raises `UnknownDevice`."""
        if device not in self.pasid_bits:
            raise UnknownDevice(device)
        return (1 << self.pasid_bits[device]) - 1

    def devices_of(self, ioasid: int) -> tuple[str, ...]:
        """Return the devices that have an entry for an ID."""
        return tuple(device for device, table in self.tables.items() if ioasid in table)

    def binds_of(self, ioasid: int) -> int:
        """Return how often an ID is bound, to all devices together."""
        return sum(table[ioasid].binds for table in self.tables.values() if ioasid in table)

    def programmed(self) -> dict[int, Entry]:
        """Return one entry of every ID that has any."""
        return {ioasid: entry for table in self.tables.values() for ioasid, entry in table.items()}

    async def open(self, device: str, pasid_bits: int) -> int:
        """Give a device a table, unless it has one; returns the width of its PASIDs.

        It is `pasid_bits` (1..20), or what the device has, if that is less.
        """
        if device not in self.tables:
            self.pasid_bits[device] = await self.hardware.open(device, pasid_bits)
            self.tables[device] = {}
        return self.pasid_bits[device]

    async def close(self, device: str) -> None:
        """Let a device go, if it is there; what is attached there faults from then on."""
        await self.hardware.close(device)
        self.tables.pop(device, None)
        self.pasid_bits.pop(device, None)
        self.closed.discard(device)

    async def attach(self, device: str, ioasid: int, entry: Entry) -> None:
        """Program an entry.

        Raises `PasidZero`, `AlreadyProgrammed` for what is attached, and what the tables are
        refused with; then nothing has changed.
        """
        if not ioasid:
            raise PasidZero(device)
        if ioasid in self.hardware.attached(device):
            # The kernel would replace it, and say nothing.
            raise AlreadyProgrammed(device, ioasid)
        await self.hardware.attach(device, ioasid, entry)
        self.tables[device][ioasid] = entry

    async def detach(self, device: str, ioasid: int) -> None:
        """Remove one device's entry and flush; an entry whose detach fails stays in the table."""
        await self.hardware.detach(device, ioasid)
        self.tables[device].pop(ioasid, None)
        self.flushes += 1

    async def tear_down(self, ioasid: int) -> tuple[str, ...]:
        """Remove an ID's entries from every device and flush; returns the devices."""
        devices = self.devices_of(ioasid)
        for device in devices:
            await self.detach(device, ioasid)
        return devices

    async def sweep(self) -> None:
        """Detach what is attached and has no entry: nobody knows whose it is."""
        for device, table in self.tables.items():
            for ioasid in tuple(self.hardware.attached(device)):
                if ioasid not in table:
                    await self.hardware.detach(device, ioasid)
