"""PASIDs on Linux: `/dev/iommu` and VFIO devices under the IOMMU driver of a host.

`open_iommu` gives what `ioasid.actors.open_host` takes in place of its model. It needs nothing but
Linux 6.15 or later and a device that is bound to a VFIO driver; `probe` says what this machine
lacks. The package can be imported anywhere.
"""

from ioasid.linux import _address_space, _errors, _kernel, _open, _probe, _run, _tables
from ioasid.linux._address_space import *
from ioasid.linux._errors import *
from ioasid.linux._kernel import *
from ioasid.linux._open import *
from ioasid.linux._probe import *
from ioasid.linux._run import *
from ioasid.linux._tables import *

__all__: list[str] = []
__all__ += _address_space.__all__
__all__ += _errors.__all__
__all__ += _kernel.__all__
__all__ += _open.__all__
__all__ += _probe.__all__
__all__ += _run.__all__
__all__ += _tables.__all__
