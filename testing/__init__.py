"""Shown right, not believed: every invariant checked, under every schedule one cares to run.

`explore` runs a scenario, an async function over the real actors, under many interleavings and
checks the allocator after every request; `replay` runs exactly one of them again.
`CheckedAllocator` is the core with the same checks, for tests without an event loop.
"""

from ioasid.testing import _explore, _invariants, _picker, _recorder, _scenarios, _violated
from ioasid.testing._explore import *
from ioasid.testing._invariants import *
from ioasid.testing._picker import *
from ioasid.testing._recorder import *
from ioasid.testing._scenarios import *
from ioasid.testing._violated import *

__all__: list[str] = []
__all__ += _explore.__all__
__all__ += _invariants.__all__
__all__ += _picker.__all__
__all__ += _recorder.__all__
__all__ += _scenarios.__all__
__all__ += _violated.__all__
