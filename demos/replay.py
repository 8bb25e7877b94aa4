"""Replay what a kernel's allocator answered, and compare.

Each FILE is a trace recorded from the last version of the Linux kernel series for IOASID sets
(tests/conformance/data). Its operations go to a fresh allocator, and every answer, what every
subscriber was told, and the state are compared:

    agreement     the same; or the kernel refused without saying why, and this allocator says it
    decided       different on purpose, as a rule foretells it (tests/conformance/replay/rules.py)
    disagreement  different, and nobody decided so

The exit status is 1 for any disagreement, and 2 for a file that is no trace. There is nothing to
record here: no actor asks and nobody is sent anything, the state machine is driven step by step.
--json has every step.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    # Run as a file: the folder above is where `tests` is.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demos.terminal import end_with_the_pipe
from tests.conformance.replay.engine import replay
from tests.conformance.replay.report import JsonReporter, Reporter, RichReporter
from tests.conformance.replay.trace import Trace, TraceError, load


def run(traces: Sequence[Trace], reporter: Reporter) -> bool:
    """Replay traces, each on an allocator of its own; answers whether all passed."""
    reports = []
    reporter.begin()
    for trace in traces:
        reports.append(replay(trace))
        reporter.trace(reports[-1])
    reporter.end(reports)
    return all(report.passed for report in reports)


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay the files named on the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Replay recorded kernel traces and compare.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a recorded trace")
    parser.add_argument("--json", action="store_true", help="one event a line")
    options = parser.parse_args(arguments)
    try:
        traces = [load(path) for path in options.files]
    except TraceError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0 if run(traces, JsonReporter() if options.json else RichReporter()) else 1


if __name__ == "__main__":
    end_with_the_pipe()
    sys.exit(main())
