"""Mutants of the core that no test can tell from the original, and why, by module."""

from typing import Final

EQUIVALENT: Final[dict[str, dict[str, str]]] = {
    "_check": {
        "_utf8_length: return MAX_DATA + 1 | 1 → 2": "any length above the most there may be",
    },
    "_messages": {
        "Message: class Message(Struct, frozen=True, tag=True, gc=False, "
        "forbid_unknown_fields=True): | True → False": "every message says so itself",
    },
}
