"""Explore the shipped scenarios: `python -m ioasid.testing`."""

import sys

from ioasid.testing._program import main

if __name__ == "__main__":
    sys.exit(main())
