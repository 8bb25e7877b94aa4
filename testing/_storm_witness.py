"""Who watches a storm: what must hold at every decision of the allocator and step of an actor."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from attrs import frozen

from ioasid.actors import CompleteDma, Host, Programmed, StartDma
from ioasid.core import (
    Alloc,
    AllocMany,
    AllocSet,
    Answer,
    CloseSession,
    Event,
    EventKind,
    Evict,
    IoasidRecord,
    Message,
    Refused,
    Request,
    Resync,
    Subscribe,
)
from ioasid.testing._fake_kernel import FakeKernel
from ioasid.testing._lives import named_in
from ioasid.testing._storm_report import StormReport
from ioasid.testing._storm_streams import Streams

__all__: list[str] = []

WITNESS: Final = "witness"
"""Its holder name."""
PROCESS: Final = "process"
"""Who owns the IDs of the host's own set."""

Hardware: TypeAlias = tuple[str, Mapping[int, int]]
"""The holder that drives it, and every ID that it has programmed, with the set that is for."""


@frozen
class Life:
    """One life of an ID, from ALLOC to RECLAIM."""

    number: int
    sid: int
    owner: str
    """Whose memory DMA with it may reach; `PROCESS` for any process of the host."""
    generation: int = 0
    """Which of the VMs that had this name, one after the other."""


class Witness:
    """Checks what every single decision and step has to fulfil.

    That it is told every ALLOC and RECLAIM in the instant of the decision, it owes to a
    subscription of its own, which orders nothing and so delays nobody.
    """

    def __init__(
        self,
        report: StormReport,
        violated: Callable[[str], None],
        kernel: FakeKernel | None = None,
    ) -> None:
        self.host: Host | None = None
        self.kernel = kernel
        """What the IOMMU driver programs, if it is not the model."""
        self.hardware: Callable[[], Iterable[Hardware]] = list
        """Gives what users' drivers have programmed."""
        self.lives: dict[int, Life] = {}
        """The IDs that are allocated now."""
        self.earlier: dict[int, Life] = {}
        """The last life that ended, of every ID."""
        self.transfers: dict[tuple[str, int], tuple[int, Life]] = {}
        """The ID and its life, by device and number, of what was started and not completed."""
        self.generations: Counter[str] = Counter()
        """How many sets there were with each token."""
        self.vtd_restarts = False
        self._report = report
        self._violated = violated
        self._streams = Streams(violated)
        self._begun = 0
        self._written_off: set[str] = set()
        """Holders that were evicted; what their actors still remember means nothing."""

    # -- decisions ----------------------------------------------------------------------------

    def decided(self, holder: str, request: Request, answer: Answer | Refused) -> None:
        """See a request and its answer, before what it set off."""
        self._report.decisions += 1
        if isinstance(answer, Refused):
            self._report.refusals[answer.error] += 1
            return
        match request:
            case Subscribe():
                self._written_off.discard(holder)
                self._streams.begin(holder, request.kinds, self._begun)
            case AllocSet(token=str(token)):
                self.generations[token] += 1
            case CloseSession():
                self._streams.end(holder)
            case Evict(name):
                self._streams.end(name)
                self._written_off.add(name)
            case _:
                pass

    def lives_on(self, event: Event, record: IoasidRecord | None) -> None:
        """See an ALLOC or RECLAIM; `record` is the ID's, if it has one now."""
        ioasid = event.ioasid
        if event.kind is EventKind.ALLOC:
            if ioasid in self.lives:
                self._violated(f"IOASID {ioasid} was allocated twice without a RECLAIM between")
            self._begun += 1
            owner = PROCESS if event.token is None else event.token
            generation = self.generations[owner]
            self.lives[ioasid] = Life(self._begun, event.sid, owner, generation)
            self._report.most_live = max(self._report.most_live, len(self.lives))
            self._check_unused(ioasid, "was handed out")
            if record is None or record.reference_count != 1 or record.spid is not None:
                self._violated(f"IOASID {ioasid} was not fresh when it was handed out: {record}")
        else:
            life = self.lives.pop(ioasid, None)
            if life is None:
                self._violated(f"IOASID {ioasid} was reclaimed without being allocated")
            else:
                self.earlier[ioasid] = life
            self._check_unused(ioasid, "was reclaimed")

    def told(self, holder: str, message: Event | Resync) -> None:
        """See what a subscriber is told."""
        if isinstance(message, Resync):
            self._report.events["Resync"] += 1
            self._streams.resynced(holder, message)
            return
        self._report.events[message.kind] += 1
        life = self.lives.get(message.ioasid) or self.earlier.get(message.ioasid)
        self._streams.told(holder, message, 0 if life is None else life.number)

    def answered(self, request: Request, answer: Answer | Refused) -> None:
        """See an answer once more, after what the request set off."""
        if isinstance(request, Alloc | AllocMany):
            for ioasid in named_in(answer):
                self._handed_out(ioasid, request)

    def _handed_out(self, ioasid: int, request: Alloc | AllocMany) -> None:
        life = self.lives.get(ioasid)
        if life is None:
            self._violated(f"nobody was told that IOASID {ioasid} was allocated")
        elif (
            request.sid != life.sid
            or not request.min <= ioasid
            or (request.max is not None and ioasid > request.max)
        ):
            self._violated(f"IOASID {ioasid} is not what {request} asked for: {life}")

    # -- hardware -----------------------------------------------------------------------------

    def _check_unused(self, ioasid: int, what: str) -> None:
        for use in self._uses(ioasid):
            self._violated(f"IOASID {ioasid} {what} while {use}")

    def _uses(self, ioasid: int) -> Iterator[str]:
        # What CPUs, devices and the IOMMU still have programmed for it.
        if self.host is None:
            return
        for device in self.host.vtd.iommu.devices_of(ioasid):
            yield f"the IOMMU had an entry for it on {device}"
        for path, pasids in self._attached().items():
            if ioasid in pasids:
                yield f"the kernel had it attached on {path}"
        for name, vdcm in self.host.devices.items():
            if ioasid in vdcm.device.contexts:
                yield f"{name} had a context for it"
            if ioasid in vdcm.device.transfers.values():
                yield f"{name} had a transfer in flight with it"
        for name, programmed in self.hardware():
            if ioasid in programmed:
                yield f"{name} had it programmed"
        life = self.lives.get(ioasid) or self.earlier.get(ioasid)
        vm = None if life is None else self.host.vms.get(life.owner)
        if vm is None or vm.kvm.holder in self._written_off:
            return
        for gpasid, mapped in vm.kvm.table.items():
            if mapped == ioasid:
                yield f"{vm.kvm.holder} translated {gpasid} to it"

    def _attached(self) -> Mapping[str, Mapping[int, int]]:
        return {} if self.kernel is None else self.kernel.attached()

    def look(self, find: Callable[[int], IoasidRecord | None]) -> None:
        """Look at all hardware: whatever has an ID programmed has a reference to it."""
        host = self.host
        assert host is not None
        for name, table in host.vtd.iommu.tables.items():
            for ioasid in table:
                self._check_held(find(ioasid), ioasid, "vtd", f"an entry on {name}")
                self._check_entry(ioasid, name)
        for path, pasids in self._attached().items():
            for ioasid in pasids:
                self._check_held(find(ioasid), ioasid, "vtd", f"an attachment on {path}")
        for vdcm in host.devices.values():
            for ioasid in vdcm.device.contexts:
                self._check_held(find(ioasid), ioasid, vdcm.holder, "a context")
        for vm in host.vms.values():
            if vm.kvm.holder not in self._written_off:
                for ioasid in vm.kvm.table.values():
                    self._check_held(find(ioasid), ioasid, vm.kvm.holder, "a translation")
        for name, programmed in self.hardware():
            self._check_programmed(name, programmed)

    def _check_held(self, record: IoasidRecord | None, ioasid: int, holder: str, what: str) -> None:
        if record is None or holder not in record.references:
            self._violated(f"{holder} has {what} for IOASID {ioasid} and no reference: {record}")

    def _check_entry(self, ioasid: int, device: str) -> None:
        assert self.host is not None
        entry = self.host.vtd.iommu.tables[device][ioasid]
        life = self.lives.get(ioasid)
        if life is None or life.owner not in (entry.owner, entry.owner.split()[0]):
            self._violated(f"the entry of IOASID {ioasid} on {device}, of {life}, is {entry}")

    def _check_attached(self, ioasid: int, device: str) -> None:
        known = any(
            path.endswith(f"/{device}") and ioasid in pasids
            for path, pasids in self._attached().items()
        )
        if self.kernel is not None and not known:
            self._violated(f"IOASID {ioasid} is not attached on {device}, and is said to be")

    def _check_programmed(self, name: str, programmed: Mapping[int, int]) -> None:
        for ioasid, sid in programmed.items():
            life = self.lives.get(ioasid)
            if life is None:
                self._violated(f"{name} has IOASID {ioasid} programmed, which is in the pool")
            elif life.sid != sid:
                self._violated(f"{name} has IOASID {ioasid} programmed for set {sid}: it is {life}")

    # -- steps of actors ----------------------------------------------------------------------

    def stepped(self, actor: str, message: Message) -> None:
        """See what an actor takes up or did, before it handles it; its name is a holder's."""
        self._report.steps[type(message).__name__] += 1
        host = self.host
        if host is None:
            return
        for name, programmed in self.hardware():
            if name == actor:
                self._check_programmed(name, programmed)
        device = actor.partition(":")[2]
        if isinstance(message, StartDma) and device in host.devices:
            # If the device takes it, this is the number it gets.
            life = self.lives.get(message.ioasid)
            if life is not None:
                number = host.devices[device].device.started + 1
                self.transfers[device, number] = message.ioasid, life
        elif isinstance(message, CompleteDma) and device in host.devices:
            self._completes(host, device, message.transfer)
        elif isinstance(message, Programmed):
            self._check_entry(message.ioasid, message.device)
            self._check_attached(message.ioasid, message.device)
        elif actor == host.vtd.holder and isinstance(message, Resync):
            self.vtd_restarts = False

    def _completes(self, host: Host, device: str, transfer: int) -> None:
        ioasid = host.devices[device].device.transfers.get(transfer)
        if ioasid is None:
            return
        entry = host.vtd.iommu.translate(device, ioasid)
        if entry is None:
            self._report.faulted += 1
            return
        self._report.landed += 1
        begun = self.transfers.pop((device, transfer), None)
        if begun is None or begun[0] != ioasid:
            self._violated(f"transfer {transfer} of {device} was never started with {ioasid}")
        elif begun[1] is not self.lives.get(ioasid):
            self._violated(
                f"DMA {transfer} of {device}, started by {begun[1]}, landed in a later life of "
                f"IOASID {ioasid}: {self.lives.get(ioasid)}"
            )
        elif begun[1].owner not in (entry.owner, entry.owner.split()[0]):
            self._violated(
                f"DMA {transfer} of {device}, started by {begun[1]}, landed in {entry.owner}"
            )

    # -- what tasks ask it --------------------------------------------------------------------

    def check_owner(self, ioasid: int, owner: str, generation: int, what: str) -> None:
        """Object unless an ID is the owner's, or was until its last life ended."""
        lives = (self.lives.get(ioasid), self.earlier.get(ioasid))
        if not any(
            life is not None and (life.owner, life.generation) == (owner, generation)
            for life in lives
        ):
            self._violated(f"IOASID {ioasid} of {lives[0]} {what} {owner}, its number {generation}")

    def belongs(self, ioasid: int, owner: str, generation: int) -> bool:
        """Tell whether an ID is the owner's now."""
        life = self.lives.get(ioasid)
        return life is not None and (life.owner, life.generation) == (owner, generation)
