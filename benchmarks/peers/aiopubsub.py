"""aiopubsub: a hub that puts into the queues of subscribers, by keys."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiopubsub import Hub, Key, Publisher, Subscriber

from benchmarks.peers.peer import Got, Peer, Publish, reading


@asynccontextmanager
async def telling(groups: int, size: int, got: Got) -> AsyncIterator[Publish]:
    hub = Hub()
    publisher = Publisher(hub, prefix=Key("groups"))
    keys = [Key(str(group)) for group in range(groups)]
    subscribers = [Subscriber(hub, str(number)) for number in range(groups * size)]
    for number, subscriber in enumerate(subscribers):
        subscriber.async_subscribe(Key("groups") + keys[number // size])

    def told(number: int, keyed: tuple[Any, int]) -> None:
        got(number, keyed[1])

    async def publish(group: int, message: int) -> None:
        publisher.publish(keys[group], message)

    # Faster than a listener, which makes a task of every message.
    async with reading([subscriber.consume for subscriber in subscribers], told):
        yield publish


PEER = Peer("aiopubsub", telling=telling)
