"""The errors of a journal: each carries its errno and its facts, and says what to do."""

import pytest

import ioasid.journal
from ioasid.core import IoasidError
from tests.core.test_errors import check_errno, check_message, check_template, concrete

CONCRETE = concrete(ioasid.journal)
ERRNOS = {
    "JournalDamaged": "EBADMSG",
    "JournalFolderMissing": "ENOENT",
    "JournalForbidden": "EACCES",
    "JournalForeign": "EPROTONOSUPPORT",
    "JournalInUse": "EBUSY",
    "JournalUnusable": "EIO",
}


def test_every_error_is_listed() -> None:
    """The table of errnos here names every concrete error and no other."""
    assert sorted(ERRNOS) == [kind.__name__ for kind in CONCRETE]


@pytest.mark.parametrize("kind", CONCRETE)
def test_each_error(kind: type[IoasidError]) -> None:
    """An error has its errno, one template with all its facts, and the message made of them."""
    check_errno(kind, ERRNOS[kind.__name__])
    check_template(kind)
    check_message(kind)
