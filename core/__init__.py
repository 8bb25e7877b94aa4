"""The IOASID allocator as a pure state machine: no I/O, no event loop, no clock.

`Allocator` decides; requests go in through `Allocator.handle`, replies come back, and what else
is to be done comes out of `Allocator.drain`. `ioasid.actors` runs it as an actor.
"""

from ioasid.core import _allocator, _effects, _errors, _messages, _snapshot, _wire
from ioasid.core._allocator import *
from ioasid.core._effects import *
from ioasid.core._errors import *
from ioasid.core._messages import *
from ioasid.core._snapshot import *
from ioasid.core._wire import *

__all__: list[str] = []
__all__ += _allocator.__all__
__all__ += _effects.__all__
__all__ += _errors.__all__
__all__ += _messages.__all__
__all__ += _snapshot.__all__
__all__ += _wire.__all__
