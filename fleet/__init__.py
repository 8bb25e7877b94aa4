"""Many hosts: a VM moves from one to another, its guest's PASIDs stay, and a store decides.

`Coordinator` moves VMs, `HostAgent` carries out on each host what that takes, and what is true of
a VM is one record in a `Store`. Anybody may finish or abort what somebody else began.
"""

from ioasid.fleet import (
    _agent,
    _coordinator,
    _errors,
    _etcd,
    _gate,
    _hosts,
    _line,
    _member,
    _memory,
    _protocol,
    _store,
    _tenants,
)
from ioasid.fleet._agent import *
from ioasid.fleet._coordinator import *
from ioasid.fleet._errors import *
from ioasid.fleet._etcd import *
from ioasid.fleet._gate import *
from ioasid.fleet._hosts import *
from ioasid.fleet._line import *
from ioasid.fleet._member import *
from ioasid.fleet._memory import *
from ioasid.fleet._protocol import *
from ioasid.fleet._store import *
from ioasid.fleet._tenants import *

__all__: list[str] = []
__all__ += _agent.__all__
__all__ += _coordinator.__all__
__all__ += _errors.__all__
__all__ += _etcd.__all__
__all__ += _gate.__all__
__all__ += _hosts.__all__
__all__ += _line.__all__
__all__ += _member.__all__
__all__ += _memory.__all__
__all__ += _protocol.__all__
__all__ += _store.__all__
__all__ += _tenants.__all__
