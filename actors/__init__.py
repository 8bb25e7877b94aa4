"""The allocator as an actor, and the actors around it, on anyio: asyncio, uvloop and trio."""

from ioasid.actors import (
    _actor,
    _client,
    _commit,
    _errors,
    _host,
    _iommu,
    _kvm,
    _moves,
    _open,
    _session,
    _steps,
    _subscription,
    _supervision,
    _taps,
    _vdcm,
    _vfio,
    _vtd,
)
from ioasid.actors._actor import *
from ioasid.actors._client import *
from ioasid.actors._commit import *
from ioasid.actors._errors import *
from ioasid.actors._host import *
from ioasid.actors._iommu import *
from ioasid.actors._kvm import *
from ioasid.actors._moves import *
from ioasid.actors._open import *
from ioasid.actors._session import *
from ioasid.actors._steps import *
from ioasid.actors._subscription import *
from ioasid.actors._supervision import *
from ioasid.actors._taps import *
from ioasid.actors._vdcm import *
from ioasid.actors._vfio import *
from ioasid.actors._vtd import *

__all__: list[str] = []
__all__ += _actor.__all__
__all__ += _client.__all__
__all__ += _commit.__all__
__all__ += _errors.__all__
__all__ += _host.__all__
__all__ += _iommu.__all__
__all__ += _kvm.__all__
__all__ += _moves.__all__
__all__ += _open.__all__
__all__ += _session.__all__
__all__ += _steps.__all__
__all__ += _subscription.__all__
__all__ += _supervision.__all__
__all__ += _taps.__all__
__all__ += _vdcm.__all__
__all__ += _vfio.__all__
__all__ += _vtd.__all__
