"""See what happened: a recording of every decision and step, and drawings of it.

`record` writes what allocators decide and actors do into a file, a JSON line each, for the length
of a `with`; `read` reads it back; `draw` makes a page or a trace of it.
"""

from ioasid.recorder import _draw, _errors, _lines, _reader, _writer
from ioasid.recorder._draw import *
from ioasid.recorder._errors import *
from ioasid.recorder._lines import *
from ioasid.recorder._reader import *
from ioasid.recorder._writer import *

__all__: list[str] = []
__all__ += _draw.__all__
__all__ += _errors.__all__
__all__ += _lines.__all__
__all__ += _reader.__all__
__all__ += _writer.__all__
