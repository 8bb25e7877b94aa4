"""The allocator of a host, for every process on it: the protocol, its clients and the server."""

from ioasid.service import (
    _account,
    _config,
    _connect,
    _connection,
    _credentials,
    _errors,
    _frames,
    _gate,
    _limits,
    _metrics,
    _permits,
    _policy,
    _program,
    _server,
)
from ioasid.service._account import *
from ioasid.service._config import *
from ioasid.service._connect import *
from ioasid.service._connection import *
from ioasid.service._credentials import *
from ioasid.service._errors import *
from ioasid.service._frames import *
from ioasid.service._gate import *
from ioasid.service._limits import *
from ioasid.service._metrics import *
from ioasid.service._permits import *
from ioasid.service._policy import *
from ioasid.service._program import *
from ioasid.service._server import *

__all__: list[str] = []
__all__ += _account.__all__
__all__ += _config.__all__
__all__ += _connect.__all__
__all__ += _connection.__all__
__all__ += _credentials.__all__
__all__ += _errors.__all__
__all__ += _frames.__all__
__all__ += _gate.__all__
__all__ += _limits.__all__
__all__ += _metrics.__all__
__all__ += _permits.__all__
__all__ += _policy.__all__
__all__ += _program.__all__
__all__ += _server.__all__
