"""The errors of opening a journal, part of the one tree under `ioasid.core.IoasidError`.

What happens to one that is open is said by `ioasid.core.NotCommitted` and those below it.
"""

import errno as _errno

from attrs import define

from ioasid.core import Busy, IoasidError, NotFound

__all__ = [
    "JournalDamaged",
    "JournalFolderMissing",
    "JournalForbidden",
    "JournalForeign",
    "JournalInUse",
    "JournalUnusable",
]


@define
class JournalInUse(Busy):
    """EBUSY: another allocator has the journal; one at a time may.

    It is let go when that one ends, however it ends.
    """

    errno = _errno.EBUSY
    template = "the journal {path} is in use by another allocator; end that one first"
    path: str


@define
class JournalDamaged(IoasidError):
    """EBADMSG: something in the journal is not what was written there.

    `place` says where, `reason` what is wrong. The files are as they were found, but for an
    unfinished write at the end. Nothing is guessed: what was kept after that place is of no use
    without it.
    """

    errno = _errno.EBADMSG
    template = (
        "the journal {path} is damaged at {place}: {reason}; copy its files away, look into them "
        "with python -m ioasid.journal, and begin with a backup"
    )
    path: str
    place: str
    reason: str


@define
class JournalForeign(IoasidError):
    """EPROTONOSUPPORT: the file is not a journal, or one of a version that is not known here."""

    errno = _errno.EPROTONOSUPPORT
    template = (
        "{path} is {found} (this release reads {known}); "
        "name another file, or use the release that wrote it"
    )
    path: str
    found: str
    known: str


@define
class JournalFolderMissing(NotFound):
    """ENOENT: the folder that the journal is to be in is not there. Nothing was made."""

    errno = _errno.ENOENT
    template = "there is no folder for the journal {path}; make it, or name another file"
    path: str


@define
class JournalForbidden(IoasidError):
    """EACCES: this user may not read and write the journal, or make files in its folder."""

    errno = _errno.EACCES
    template = (
        "this user may not read and write the journal {path}; give this user the file and its "
        "folder, and look whether the disk is mounted read-only"
    )
    path: str


@define
class JournalUnusable(IoasidError):
    """EIO: the journal can't be opened for another reason, which the file system gives."""

    errno = _errno.EIO
    template = "the journal {path} can't be opened ({reason}); see to the file and its folder"
    path: str
    reason: str
