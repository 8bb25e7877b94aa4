"""`python -m ioasid.linux probe`: what this machine can do, and what it lacks."""

import argparse
import sys
from collections.abc import Sequence

from ioasid.linux._probe import probe


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit code is 0 if PASIDs can be attached here, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m ioasid.linux", description=__doc__)
    parser.add_argument("command", choices=("probe",))
    parser.parse_args(arguments)
    found = probe()
    sys.stdout.write(f"{found}\n")
    return 0 if found.ready else 1


if __name__ == "__main__":
    sys.exit(main())
