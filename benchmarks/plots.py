"""Plots of cost against size, as small SVG files that are the same for the same figures."""

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

LINES = ("o-", "s--", "^-.", "D:", "v-", "P--")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#555555", "#e69f00")
"""Told apart by the colour-blind as well; shapes and dashes help where there is no colour."""


def draw(
    path: Path, title: str, size: str, cost: str, lines: Mapping[str, Mapping[int, float]]
) -> None:
    """Draw a line for each contender, both axes logarithmic."""
    # Text stays text, identifiers are the same every time, and no date is written.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem}):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.add_subplot(title=title, xlabel=size, ylabel=cost)
        axes.set_xscale("log")
        axes.set_yscale("log")
        for (name, costs), line, colour in zip(
            lines.items(), cycle(LINES), cycle(COLOURS), strict=False
        ):
            axes.plot(list(costs), list(costs.values()), line, color=colour, label=name)
        axes.xaxis.set_minor_locator(NullLocator())
        shown = [cost for costs in lines.values() for cost in costs.values()]
        # Between the powers of ten only where these are few.
        fine = max(shown) < 1000 * min(shown)
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)) if fine else NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(visible=True, linewidth=0.3)
        axes.legend(fontsize="small")
        figure.savefig(path, metadata={"Creator": None, "Date": None})
