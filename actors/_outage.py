"""A journal that can't be written: what may go on meanwhile, and what is kept until it can be."""

import logging
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from ioasid.actors._commit import Answers
from ioasid.actors._durable import Keeper
from ioasid.actors._envelope import Envelope
from ioasid.actors._reply import Reply, reply_factory
from ioasid.core import (
    Acknowledge,
    Allocator,
    CloseSession,
    Continue,
    Defer,
    Detach,
    NotCommitted,
    Request,
    SuspendSession,
    Unsubscribe,
    error_of,
    refusal_of,
)

__all__: list[str] = []

logger = logging.getLogger("ioasid")

LEAVING: Final = frozenset((CloseSession, Detach, SuspendSession, Unsubscribe))
"""Requests that end a session or a subscription."""


class Outage:
    """Whether a journal can be written at the moment, and what waits for that.

    Who only looks is answered. Who asks for a change is refused. What nobody waits for (an
    acknowledgement, what somebody insists on) is kept, and decided when it can be written again;
    so is the end of a session or a subscription, whoever waits. It is bounded by what there is to
    acknowledge, to let go of, and to end, and by who waits: no acknowledgement is kept twice, and
    none that would have no effect.
    """

    def __init__(self, keeper: Keeper | None) -> None:
        self._keeper = keeper
        self._new_reply = reply_factory()
        self.failure: NotCommitted | None = None
        """Why nothing can be committed at the moment; `None` if all is well."""
        self._over: Reply[None] | None = None
        self.kept: list[Envelope] = []
        """What is decided when it can be written again, in order."""
        self._noted: set[tuple[type, int, int]] = set()
        """What is kept of acknowledgements and deferrals, by subscription and seq."""

    def begin(self, error: NotCommitted) -> None:
        """Note that something could not be committed; nothing is decided until `is_back`."""
        self.failure = error
        self._over = self._new_reply()
        logger.error("%s; what only looks goes on", error)

    def is_back(self) -> None:
        """Note that the state is that of the last commit again."""
        assert self._over is not None
        self._over.set_result(None)
        self._over = None

    async def go_on(
        self, taken: list[Envelope], changes: Callable[[Request], bool]
    ) -> list[Envelope]:
        """Return what to decide: what was taken, behind what was kept if it can be written again.

        Waits until the state is that of the last commit. It is tried only for what `changes`
        something.
        """
        if self._over is not None:
            await self._over
        if self.failure is None or not (self.kept or any(changes(each.request) for each in taken)):
            return taken
        assert self._keeper is not None
        try:
            await self._keeper.retry()
        except NotCommitted as error:
            self.failure = error
            # Whoever gives up asks again, perhaps.
            self.kept = [each for each in self.kept if each.reply is None or not each.reply.done()]
            return taken
        logger.warning("the journal can be written again; all goes on")
        self.failure = None
        kept, self.kept = self.kept, []
        self._noted.clear()
        return kept + taken

    def admit(self, taken: list[Envelope], core: Allocator, answers: Answers) -> list[Envelope]:
        """Return who may be decided meanwhile; the others are refused, or kept."""
        if self.failure is None:
            return taken
        admitted = []
        for envelope in taken:
            reply = envelope.reply
            if not core.may_change(envelope.request):
                admitted.append(envelope)
            elif reply is None:
                self._keep(envelope, core)
            elif envelope.insists or type(envelope.request) in LEAVING:
                # Who asks from afar is gone by the time that it hears of a refusal.
                self.kept.append(envelope)
            elif not reply.done():
                # One for each: whoever raises it adds to its traceback.
                answers.append((reply, error_of(refusal_of(self.failure)), envelope))
        return admitted

    def _keep(self, envelope: Envelope, core: Allocator) -> None:
        request = envelope.request
        if isinstance(request, Acknowledge | Defer):
            # Nothing is told meanwhile, so what has no effect now will have none then.
            kind = type(request)
            found = core.concerned(envelope.session, request)
            new = sorted(each for each in found if (kind, *each) not in self._noted)
            if not new:
                return
            self._noted.update((kind, *each) for each in new)
            if kind is Acknowledge:
                envelope = replace(envelope, request=Acknowledge(tuple(new)))
        self.kept.append(envelope)

    def end(self) -> None:
        """Say what is lost, if the allocator ends meanwhile."""
        # What is done in parts goes on in the next process.
        lost = [each for each in self.kept if type(each.request) is not Continue]
        if lost:
            logger.error(
                "the allocator ends without its journal: acknowledgements, dropped references or "
                "ends of sessions are lost, %d in all, so whoever they are of comes back as if it "
                "had crashed",
                len(lost),
            )
