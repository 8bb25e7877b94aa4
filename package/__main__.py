"""`ioasid` and `python -m ioasid`: the command line, or which extra it lacks."""

import sys
from importlib.util import find_spec
from typing import Final

__all__: list[str] = []

EXTRAS = {"aetcd": "fleet", "click": "service", "rich": "service", "textual": "top"}
"""Which extra brings what a command imports."""


NOT_INSTALLED: Final = 126
"""The status that a shell has for what is there, and can't be run."""
INTERRUPTED: Final = 130
"""The status that a shell has for what Ctrl-C ended."""


def main() -> None:
    """Run the command line, or say which extra it comes with."""
    try:
        from ioasid.fleet._command import main as run

        run()
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        extras = [extra]
        if "top" in sys.argv and extra != "top" and find_spec("textual") is None:
            # It would be asked for next.
            extras.append("top")
        names = " and ".join(f"`{each}`" for each in extras)
        what = "the command line" if "service" in extras else "this command"
        sys.stderr.write(
            f"ioasid: {what} needs what the extra {names} brings; to install that, in a checkout: "
            f"pip install '.[{','.join(extras)}]'\n"
        )
        sys.exit(NOT_INSTALLED)
    except KeyboardInterrupt:
        # While what the command needs was being loaded; nothing had begun.
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
