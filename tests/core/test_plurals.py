"""Numbers with what they count."""

import pytest

from ioasid.core._plurals import counted


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 IDs"), (1, "1 ID"), (2, "2 IDs"), (1000, "1,000 IDs")]
)
def test_nouns_agree_with_their_number(number: int, said: str) -> None:
    """There is one ID, and no, two or 1,000 IDs."""
    assert said == counted(number, "ID")
