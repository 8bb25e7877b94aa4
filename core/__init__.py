"""The IOASID allocator as a pure state machine: no I/O, no event loop, no clock.

`Allocator` decides; requests go in through `Allocator.handle`, answers come back, and what else
is to be done comes out of `Allocator.drain`. `ioasid.actors` runs it as an actor. A subscriber
follows what it is told with a `SubscriberTable`.
"""

from ioasid.core import (
    _allocator,
    _answers,
    _applied,
    _changes,
    _effects,
    _errors,
    _events,
    _explanations,
    _exports,
    _requests,
    _snapshot,
    _table,
    _terms,
    _undo,
    _wire,
)
from ioasid.core._allocator import *
from ioasid.core._answers import *
from ioasid.core._applied import *
from ioasid.core._changes import *
from ioasid.core._effects import *
from ioasid.core._errors import *
from ioasid.core._events import *
from ioasid.core._explanations import *
from ioasid.core._exports import *
from ioasid.core._requests import *
from ioasid.core._snapshot import *
from ioasid.core._table import *
from ioasid.core._terms import *
from ioasid.core._undo import *
from ioasid.core._wire import *

__all__: list[str] = []
__all__ += _allocator.__all__
__all__ += _answers.__all__
__all__ += _applied.__all__
__all__ += _changes.__all__
__all__ += _effects.__all__
__all__ += _errors.__all__
__all__ += _events.__all__
__all__ += _explanations.__all__
__all__ += _exports.__all__
__all__ += _requests.__all__
__all__ += _snapshot.__all__
__all__ += _table.__all__
__all__ += _terms.__all__
__all__ += _undo.__all__
__all__ += _wire.__all__
