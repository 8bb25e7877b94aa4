"""tapio: an actor that is a function; messages are pydantic models, checked on delivery."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tapio import ActorRef, ActorSystem, Behavior, Behaviors, Message

from benchmarks.peers.peer import Ask, Got, Peer, Publish, allocate
from ioasid.core import Allocator


class Allocated(Message):
    ioasid: int


class Alloc(Message):
    sid: int
    reply_to: ActorRef[Allocated]


class Told(Message):
    message: int


@asynccontextmanager
async def asking(core: Allocator) -> AsyncIterator[Ask]:
    async def on_alloc(request: Alloc) -> Behavior[Alloc]:
        request.reply_to.tell(Allocated(ioasid=allocate(core, request.sid)))
        return Behaviors.same()

    async with ActorSystem("asking") as system:
        server = system.spawn(Behaviors.receive_message(on_alloc), name="server")

        async def ask(sid: int) -> int:
            answer = await server.ask(
                lambda reply_to: Alloc(sid=sid, reply_to=reply_to), expect=Allocated
            )
            ioasid: int = answer.ioasid
            return ioasid

        yield ask


@asynccontextmanager
async def telling(groups: int, size: int, got: Got) -> AsyncIterator[Publish]:
    async with ActorSystem("telling") as system:

        def spawn(number: int) -> ActorRef[Told]:
            async def on_told(told: Told) -> Behavior[Told]:
                got(number, told.message)
                return Behaviors.same()

            return system.spawn(Behaviors.receive_message(on_told), name=f"receiver-{number}")

        receivers = [spawn(number) for number in range(groups * size)]

        async def publish(group: int, message: int) -> None:
            told = Told(message=message)
            for receiver in receivers[group * size : (group + 1) * size]:
                receiver.tell(told)

        yield publish


PEER = Peer("tapio-py", asking, telling)
