"""What most tests of the core begin with.

Nothing of the product is imported before a test asks for it: `make mutate` plants its faults after
this file was loaded.
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.core.helpers import Driver


@pytest.fixture
def driver() -> "Driver":
    """An allocator of 64 IDs with nothing in it."""
    from tests.core.helpers import Driver

    return Driver()


@pytest.fixture
def two_sets(driver: "Driver") -> None:
    """Two sets in the allocator: 0 with the token vm-1, and 1 with vm-2."""
    driver.set("vm-1")
    driver.set("vm-2")
