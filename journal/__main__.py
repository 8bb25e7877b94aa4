"""Look into a journal: `python -m ioasid.journal FILE`."""

import sys

from ioasid.journal._look import main

if __name__ == "__main__":
    sys.exit(main())
