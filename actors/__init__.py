"""The allocator as an actor, and the actors around it, on anyio: asyncio, uvloop and trio."""

from ioasid.actors import (
    _actor,
    _allocator,
    _errors,
    _host,
    _kvm,
    _session,
    _subscription,
    _vdcm,
    _vfio,
    _vtd,
)
from ioasid.actors._actor import *
from ioasid.actors._allocator import *
from ioasid.actors._errors import *
from ioasid.actors._host import *
from ioasid.actors._kvm import *
from ioasid.actors._session import *
from ioasid.actors._subscription import *
from ioasid.actors._vdcm import *
from ioasid.actors._vfio import *
from ioasid.actors._vtd import *

__all__: list[str] = []
__all__ += _actor.__all__
__all__ += _allocator.__all__
__all__ += _errors.__all__
__all__ += _host.__all__
__all__ += _kvm.__all__
__all__ += _session.__all__
__all__ += _subscription.__all__
__all__ += _vdcm.__all__
__all__ += _vfio.__all__
__all__ += _vtd.__all__
