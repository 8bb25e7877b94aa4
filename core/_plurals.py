"""Numbers with what they count, in words: each noun agrees with its number."""

__all__: list[str] = []


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, as in "1 ID" and "1,000 IDs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
