"""Coordinators: whoever moves VMs, finishes what others began, or aborts it; any number of them."""

from collections.abc import Callable
from typing import Final

from attrs import define
from msgspec import msgpack
from msgspec.structs import replace

from ioasid.core import InvalidArgument, IoasidError
from ioasid.fleet._agent import Agent, vm_key
from ioasid.fleet._errors import (
    MoveAborted,
    MoveUnderWay,
    RecordTooLarge,
    StaleCommand,
    UnknownVm,
)
from ioasid.fleet._protocol import Move, Phase, Send, VmRecord
from ioasid.fleet._store import Store, decoded, host_name

__all__ = ["Coordinator", "decode_record", "encode_record"]

_DECODER: Final = msgpack.Decoder(VmRecord)


def encode_record(record: VmRecord) -> bytes:
    """Return a record as the store keeps it."""
    return msgpack.encode(record)


def decode_record(value: bytes, key: str = "vm/") -> VmRecord:
    """Return a record from what the store kept under a key. Raises `UnreadableRecord`."""
    return decoded(_DECODER, key, value)


@define(eq=False)
class Coordinator:
    """Moves VMs between the hosts that `reach` finds an agent for, by name.

    It keeps nothing: when it ends anywhere on its way, another one goes on with `finish` or
    `abort`. Every method raises `StoreUnavailable` and `HostUnreachable`: what was begun stands;
    and `InvalidArgument` for what can be no name.
    """

    store: Store
    reach: Callable[[str], Agent]

    async def own(self, vm: str, host: str) -> None:
        """Note that a VM runs at a host. Raises `MoveUnderWay` if it has a record."""
        key = vm_key(vm)
        record = VmRecord(vm, Phase.OWNED, host_name(host))
        if await self.store.txn({key: 0}, {key: encode_record(record)}) is None:
            present = await self.where(vm)
            raise MoveUnderWay(vm, present.phase, present.host)

    async def where(self, vm: str) -> VmRecord:
        """Return the record of a VM. Raises `UnknownVm`."""
        return (await self._read(vm)).record

    async def begin(self, vm: str, target: str) -> None:
        """Note that a VM is to move; from then on anybody may finish that.

        To where it is, it need not. Raises `MoveUnderWay` and `UnknownVm`.
        """
        host_name(target, "target")
        move = await self._read(vm)
        record = move.record
        if record.phase is not Phase.OWNED:
            raise MoveUnderWay(vm, record.phase, record.host)
        if record.host == target:
            return
        begun = replace(record, phase=Phase.PREPARE, other=target, reason="")
        if await self._write(begun, move.revision) is None:
            now = await self.where(vm)
            raise MoveUnderWay(vm, now.phase, now.host)

    async def move(self, vm: str, target: str) -> None:
        """Move a VM to another host; returns when it runs there and the source let go of it.

        Raises `MoveAborted` if it stays, whoever aborted it, and what `begin` does.
        """
        await self.begin(vm, target)
        record = await self.finish(vm)
        if record.host != target:
            raise MoveAborted(vm, record.host, record.reason)

    async def finish(self, vm: str) -> VmRecord:
        """Go on with a VM's move, whoever began it, until nothing moves; returns the record then.

        What a host refuses before it is decided aborts it.
        """
        return await self._go_on(await self._read(vm))

    async def abort(self, vm: str, reason: str = "told to") -> VmRecord:
        """Abort a VM's move if that is not decided yet, and go on until nothing moves.

        What the record then gives as the `reason` is some text.
        """
        if type(reason) is not str or not reason:
            raise InvalidArgument.of("reason", reason, "text that is not empty")
        move = await self._read(vm)
        move.give_up(reason)
        return await self._go_on(move, reason)

    async def _go_on(self, move: Move, aborting: str = "") -> VmRecord:
        while (todo := move.next()) is not None:
            if isinstance(todo, Send):
                answer = None
                try:
                    answer = await self.reach(todo.host).carry_out(todo.command)
                except StaleCommand:
                    move = await self._again(move, aborting)
                    continue
                except IoasidError as error:
                    move.answered(error)
                    continue
                move.answered(answer)
                continue
            try:
                revision = await self._write(todo.record, todo.revision)
            except RecordTooLarge as error:
                # Its export is, and what follows an abort has none.
                move.answered(error)
                continue
            if revision is None:
                move = await self._again(move, aborting)
            else:
                move.swapped(revision)
        return move.record

    async def _again(self, move: Move, aborting: str) -> Move:
        again = await self._read(move.record.vm)
        if aborting and again.record.epoch == move.record.epoch:
            again.give_up(aborting)
        return again

    async def _read(self, vm: str) -> Move:
        key = vm_key(vm)
        found = (await self.store.get(key))[0].get(key)
        if found is None:
            raise UnknownVm(vm, "in the fleet")
        return Move(decode_record(found.value, key), found.revision)

    async def _write(self, record: VmRecord, revision: int) -> int | None:
        key = vm_key(record.vm)
        return await self.store.txn({key: revision}, {key: encode_record(record)})
