"""`ioasid` and `python -m ioasid`: the command line, or which extra it lacks."""

import sys

__all__: list[str] = []

EXTRAS = {"aetcd": "fleet", "click": "service", "rich": "service", "textual": "top"}
"""Which extra brings what a command imports."""


def main() -> None:
    """Run the command line, or say which extra it comes with."""
    try:
        from ioasid.fleet._command import main as run

        run()
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        sys.exit(f"ioasid: this command needs an extra: pip install 'ioasid[{extra}]'")


if __name__ == "__main__":
    main()
