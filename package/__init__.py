"""IOASIDs (PASIDs) for Python: the packages below, `ioasid.actors` first, have what there is."""

from typing import Final

__version__: Final = "0.1.0"
"""Of the whole distribution."""
