"""A recording that is asked as an allocator is, at any moment of what it tells."""

from pathlib import Path

import pytest

from ioasid.actors import open_allocator
from ioasid.core import RangeFull
from ioasid.recorder import read, record
from ioasid.service._recorded import Recorded
from ioasid.service._survey import Surveyor

pytestmark = pytest.mark.anyio


async def test_back_and_on_again(tmp_path: Path) -> None:
    """What was there at a moment is there again, whichever way it is reached; all that runs is."""
    with record(tmp_path / "r"):
        for token in ("vm-1", "vm-2"):
            async with open_allocator(holder="host") as host:
                vm = await host.alloc_set(token, 4)
                pasid = await host.alloc(vm.sid)
                with pytest.raises(RangeFull):
                    await host.alloc(vm.sid, min=int(pasid), max=int(pasid))
                await host.get(pasid)
                await host.free(pasid)
                await host.put(pasid)
    recorded = Recorded(read(tmp_path / "r"))
    assert len(recorded) == recorded.position

    async def seen(position: int) -> tuple[list[str | None], int, int]:
        recorded.go(position)
        found = await Surveyor(recorded).look()
        return [each.token for each in found.sets], found.figures.active, len(found.kept)

    on = [await seen(position) for position in range(1, len(recorded) + 1)]
    back = [await seen(position) for position in range(len(recorded), 0, -1)]
    assert on == back[::-1]
    assert (["vm-1"], 1, 0) in on
    assert (["vm-2"], 0, 1) in on
    recorded.go(-5)
    assert 1 == recorded.position
    assert len(recorded) - 1 == len(list(recorded.next_times()))
    recorded.go(1 << 40)
    assert len(recorded) == recorded.position
