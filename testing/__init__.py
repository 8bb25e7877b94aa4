"""Shown right, not believed: every invariant checked, under every schedule one cares to run.

`explore` is deterministic simulation testing: it runs a scenario, an async function over the real
actors, under many interleavings and checks the allocator after every request; `replay` runs
exactly one of them again. `storm` lets many VMs use a whole host at random, with crashes everywhere
and drivers of one's own among its drivers. `CheckedAllocator` is the core with the same checks, for
tests without an event loop.
"""

from ioasid.testing import (
    _checked,
    _explore,
    _fake_kernel,
    _invariants,
    _lines,
    _picker,
    _scenarios,
    _storm,
    _storm_drivers,
    _storm_report,
    _storm_settings,
    _violated,
)
from ioasid.testing._checked import *
from ioasid.testing._explore import *
from ioasid.testing._fake_kernel import *
from ioasid.testing._invariants import *
from ioasid.testing._lines import *
from ioasid.testing._picker import *
from ioasid.testing._scenarios import *
from ioasid.testing._storm import *
from ioasid.testing._storm_drivers import *
from ioasid.testing._storm_report import *
from ioasid.testing._storm_settings import *
from ioasid.testing._violated import *

__all__: list[str] = []
__all__ += _checked.__all__
__all__ += _explore.__all__
__all__ += _fake_kernel.__all__
__all__ += _invariants.__all__
__all__ += _lines.__all__
__all__ += _picker.__all__
__all__ += _scenarios.__all__
__all__ += _storm.__all__
__all__ += _storm_drivers.__all__
__all__ += _storm_report.__all__
__all__ += _storm_settings.__all__
__all__ += _violated.__all__
