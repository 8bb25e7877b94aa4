"""The allocator as an actor on anyio: asyncio, uvloop and trio."""

from ioasid.actors import _allocator, _session, _subscription
from ioasid.actors._allocator import *
from ioasid.actors._session import *
from ioasid.actors._subscription import *

__all__: list[str] = []
__all__ += _allocator.__all__
__all__ += _session.__all__
__all__ += _subscription.__all__
