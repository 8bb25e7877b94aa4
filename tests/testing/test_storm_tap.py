"""What of a host a witness is told of."""

import pytest

from ioasid.actors import open_host
from ioasid.core import EventKind, UnknownIoasid
from ioasid.testing import StormReport, StormSettings
from ioasid.testing._storm_tap import tap
from ioasid.testing._storm_witness import WITNESS, Witness


@pytest.mark.anyio
async def test_a_witness_is_told_of_everything() -> None:
    """Steps, decisions, refusals, what subscribers are told, and lives: each at its time."""
    report = StormReport(StormSettings())
    violated: list[str] = []
    witness = Witness(report, violated.append)
    async with open_host(capacity=64, system_quota=8, taps=[tap(witness)]) as host:
        witness.host = host
        await host.add_device("dsa0")
        kinds = {EventKind.ALLOC, EventKind.RECLAIM}
        async with (
            host.allocator.session(WITNESS) as session,
            session.subscribe(kinds=kinds, acknowledge_within=None),
        ):
            vm = await host.start_vm("vm-1", quota=8)
            pasid = await vm.alloc()
            assert [pasid] == list(witness.lives)
            assert "vm-1" == witness.lives[pasid].owner
            await vm.bind("dsa0", pasid, gpasid=7)
            with pytest.raises(UnknownIoasid):
                await host.allocator.free(pasid + 1)
            await vm.close()
            assert {} == witness.lives
    assert [] == violated
    assert 1 == report.steps["BindPasid"]
    told = {"ALLOC": 1, "BIND": 2, "FREE": 3}  # the witness; KVM and VT-d; VDCM as well
    assert told == {kind: report.events[kind] for kind in told}
    assert 1 == report.refusals["UnknownIoasid"]
    assert report.decisions > 8
