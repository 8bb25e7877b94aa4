"""Mutants of the core that no test can tell from the original, and why, by module."""

from typing import Final

EQUIVALENT: Final[dict[str, dict[str, str]]] = {}
