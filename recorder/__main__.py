"""`python -m ioasid.recorder`."""

import sys

from ioasid.recorder._program import main

if __name__ == "__main__":
    sys.exit(main())
