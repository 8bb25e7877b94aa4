"""How a history is written."""

import pytest

from ioasid.core import (
    Alloc,
    AttachSpid,
    Get,
    IoasidError,
    OpenSession,
    Subscribe,
    SuspendSession,
)
from tests.testing.checked import BINDINGS, ask, core_with


@pytest.mark.parametrize("thorough", [False, True])
def test_a_history_reads_well(thorough: bool) -> None:
    """A line says who asked what, what came of it, and who was told what."""
    core = core_with(OpenSession("kvm"))
    core.thorough = thorough
    ask(core, Subscribe(kinds=BINDINGS), session=2)
    ask(core, Alloc(0, data="x"), AttachSpid(1, 5))
    with pytest.raises(IoasidError):
        ask(core, Get(6))
    ask(core, Get(1), SuspendSession(), session=2)
    ask(core, OpenSession("kvm"))
    written = [" ".join(str(line).split()) for line in core.history]
    assert [
        "the allocator OpenSession(name='host') -> SessionOpened(session=1, resumed=False)",
        (
            "host AllocSet(token='vm-1', quota=4) -> SetRecord(sid=0, token='vm-1', "
            "token_type=MM, quota=4, allocated=0, state=ACTIVE)"
        ),
        "host OpenSession(name='kvm') -> SessionOpened(session=2, resumed=False)",
        (
            "kvm Subscribe(kinds={BIND, FREE, UNBIND}) -> Subscribed(subscription=1, "
            "resumed=False) begins the queue of kvm (1)"
        ),
        "host Alloc(sid=0, data='x') -> Allocated(ioasid=1, generation=1)",
        "host AttachSpid(ioasid=1, spid=5) -> Done() tells kvm (1): BIND of 1 (seq=2, spid=5)",
    ] == written[:6]
    assert "host Get(ioasid=6) -> UnknownIoasid (ENOENT:" in written[6]
    opened = "SessionOpened(session=3, resumed=True, references=[[1, 1]])"
    assert f"host OpenSession(name='kvm') -> {opened}" == written[9]
