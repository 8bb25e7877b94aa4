"""What takes back an answer that its asker never got."""

from ioasid.core._answers import (
    Allocated,
    AllocatedMany,
    Answer,
    Done,
    Imported,
    SessionOpened,
    SetRecord,
    Subscribed,
)
from ioasid.core._exports import SetExport
from ioasid.core._requests import (
    Alloc,
    AllocMany,
    AllocSet,
    CloseSession,
    Detach,
    FindBySpid,
    Free,
    FreeMany,
    FreeSet,
    Get,
    ImportSet,
    OpenSession,
    Put,
    Request,
    Subscribe,
    SuspendSession,
    Unsubscribe,
)

__all__ = ["undo_of"]


def undo_of(session: int, request: Request, answer: Answer) -> tuple[int, Request] | None:
    """Return the request that undoes one which was carried out, and the session to send it by.

    For an asker who is gone before the answer came: what only the answer names would be left
    behind. Returns `None` for what needs no answer to be found again; that stands.
    """
    match request, answer:
        case OpenSession(), SessionOpened(number, resumed):
            return number, SuspendSession() if resumed else CloseSession()
        case Subscribe(), Subscribed(number, resumed):
            return session, Detach(number) if resumed else Unsubscribe(number)
        case Alloc(), Allocated(ioasid, generation):
            return session, Free(ioasid, generation=generation)
        case AllocMany(sid), AllocatedMany(ranges, generation):
            # Somebody may have found some of them, and freed them.
            return session, FreeMany(sid, ranges, generation, missing_ok=True)
        case AllocSet(token=None), SetRecord(sid):
            return session, FreeSet(sid)
        case ImportSet(SetExport(token=None)), Imported(sid):
            return session, FreeSet(sid)
        case Get(ioasid), Done():
            return session, Put(ioasid)
        case FindBySpid(get=True), Allocated(ioasid, generation):
            return session, Put(ioasid, generation=generation)
        case _:
            return None
