"""The journal: what an allocator answered or told, kept on a disk.

`open_allocator(journal=path)` and `open_host(journal=path)` of `ioasid.actors` use it;
`python -m ioasid.journal FILE` shows what is in one, and changes nothing.
"""

from ioasid.journal import _errors
from ioasid.journal._errors import *

__all__: list[str] = []
__all__ += _errors.__all__
