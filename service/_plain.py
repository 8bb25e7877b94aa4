"""Names from strangers, as a terminal may have them: it would obey some characters."""

import textwrap

__all__: list[str] = []


def plain(text: str) -> str:
    r"""Return a text with everything that is not printable as an escape, such as `\x1b`."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def fitted(text: str, width: int) -> str:
    """Return a text in lines of at most `width` columns, broken between words only."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
