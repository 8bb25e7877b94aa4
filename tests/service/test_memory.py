"""What a server remembers of a client: enough, and no more."""

from typing import Any, get_args

from ioasid.core import (
    Alloc,
    Allocated,
    Done,
    Find,
    FindBySpid,
    Free,
    Get,
    NotReferenced,
    OpenSession,
    Request,
    Subscribe,
)
from ioasid.service._memory import (
    OF_A_CONNECTION,
    READS,
    Asked,
    Memories,
    Memory,
    is_repeatable,
    is_waiting,
)
from tests.core.examples import REQUESTS


class Connection:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.given_up: list[int] = []

    def told(self, asked: Asked) -> None:
        """Note an answer."""
        self.answers.append((asked.id, asked.result()))

    def cancelled(self, asked: Asked) -> None:
        """Note what is not answered."""
        self.given_up.append(asked.id)

    def supersede(self) -> None:
        """Nothing to do."""


def asked(memory: Memory, connection: Connection, number: int, request: Request) -> Asked:
    """Enter a request."""
    port: Any = None
    made = Asked(memory, connection, number, port, request, None, waits=is_waiting(request))
    memory.ask(made)
    return made


def test_what_may_be_decided_twice() -> None:
    """What only looks something up, and what ends with a connection; nothing else."""
    again = {type(each) for each in REQUESTS if is_repeatable(each)}
    assert READS | OF_A_CONNECTION == again - {FindBySpid}
    assert is_repeatable(FindBySpid(0, 1))
    assert not is_repeatable(FindBySpid(0, 1, get=True))
    assert READS | OF_A_CONNECTION < set(get_args(Request))


def test_an_answer_is_kept_and_told() -> None:
    """Of what changes something; what was looked up is not kept."""
    memory, connection = Memory((1, None, "me"), 10), Connection()
    memory.connection = connection
    one = asked(memory, connection, 1, Alloc(0))
    two = asked(memory, connection, 2, Find(1))
    assert (one, two) == (memory.find(1), memory.find(2))
    one.set_result(Allocated(5))
    two.set_result("record")
    assert [(1, Allocated(5)), (2, "record")] == connection.answers
    assert (one, None) == (memory.find(1), memory.find(2))
    assert [] == memory.pending


def test_a_look_that_is_answered_late() -> None:
    """It takes nothing along that was asked under its ID since."""
    memory, connection = Memory((1, None, "me"), 10), Connection()
    memory.connection = connection
    before = asked(memory, connection, 1, Subscribe())
    memory.disconnect()
    memory.connection = another = Connection()
    since = asked(memory, another, 1, Subscribe())
    before.set_result("late")
    assert since is memory.find(1)
    since.set_result("known")
    assert since is memory.find(1)


def test_the_bound() -> None:
    """The last answers are kept, the oldest of more is forgotten."""
    memory, connection = Memory((1, None, "me"), 3), Connection()
    for number in range(1, 6):
        asked(memory, connection, number, Alloc(0)).set_result(number)
    assert [None, None, 3, 4, 5] == [
        found and found.result() for found in map(memory.find, range(1, 6))
    ]


def test_giving_up() -> None:
    """What is given up is forgotten, once, and what is answered can't be."""
    memory, connection = Memory(None, 3), Connection()
    one, two = (asked(memory, connection, each, Free(1, wait=True)) for each in (1, 2))
    assert 2 == memory.waits
    assert one.cancel()
    assert not one.cancel()
    assert (True, True, [1], 1) == (one.done(), one.cancelled(), connection.given_up, memory.waits)
    two.set_result(True)
    assert not two.cancel()
    assert (False, 0, None) == (two.cancelled(), memory.waits, memory.find(1))


def test_a_reference_that_was_lost() -> None:
    """What gave a holder a reference that it has no more is forgotten, and nothing else."""
    memory, connection = Memory((1, None, "me"), 3), Connection()
    answers = (Done(), Allocated(2, 1), Done(), NotReferenced("vm", 1))
    requests: tuple[Request, ...] = (Get(1), FindBySpid(0, 7, get=True), Get(3), Get(1))
    for number, (request, answer) in enumerate(zip(requests, answers, strict=True), 1):
        made = asked(memory, connection, number, request)
        made.holder = "vm"
        made.set_result(answer)
    memory.came_back("another", ())
    # The first one was forgotten before, for it is one of too many.
    assert [None, 2, 3, 4] == [found and found.id for found in map(memory.find, range(1, 5))]
    memory.came_back("vm", {3: 1})
    assert [None, 3, 4] == [found and found.id for found in map(memory.find, range(2, 5))]
    asked(memory, connection, 5, Alloc(0)).set_result(Allocated(5))
    assert [3, 4, 5] == [found and found.id for found in map(memory.find, range(3, 6))]


def test_a_connection_ends() -> None:
    """What is worth nothing without it is forgotten, answered or not, then or later."""
    memory, connection = Memory((1, None, "me"), 10), Connection()
    memory.connection = connection
    requests: tuple[Request, ...] = (OpenSession("a"), Subscribe(), Get(1), Alloc(0))
    made = [asked(memory, connection, each, r) for each, r in enumerate((*requests, *requests), 1)]
    for each in made[:4]:
        each.set_result(each.id)
    memory.disconnect()
    for each in made[4:]:
        each.set_result(each.id)
    assert [3, 4, 7, 8] == [each for each in range(1, 9) if memory.find(each)]


def test_a_client_that_comes_and_goes_under_many_names() -> None:
    """It costs others nothing: of so many of a user or a tenant the oldest is forgotten."""
    memories = Memories(5, 5, 4)

    def leave(*client: Any) -> list[Any]:
        memory, _ = memories.recall(client, Connection())
        return [each.client for each in memories.leave(memory, comes_back=True)]

    first = [leave(1, None, "me"), leave(2, "vm-1", "me"), leave(2, "vm-2", "a")]
    assert [[], [], []] == first
    found = [leave(2, "vm-2", name) for name in "bcdef"]
    assert [[], *([(2, "vm-2", name)] for name in "abcd")] == found
    for client in ((1, None, "me"), (2, "vm-1", "me")):
        assert memories.recall(client, Connection())[1]


def test_clients_that_are_away() -> None:
    """A few are remembered; who left for good, or can't come back, is forgotten at once."""
    memories = Memories(5, 5, 2)
    kept = []
    for number in range(4):
        memory, resumed = memories.recall((number, None, "me"), Connection())
        assert not resumed
        kept.append(memory)
    assert 4 == len(memories.here)
    assert [] == memories.leave(kept[0], comes_back=True)
    assert [kept[1]] == memories.leave(kept[1], comes_back=False)
    assert [] == memories.leave(kept[2], comes_back=True)
    assert [kept[0]] == memories.leave(kept[3], comes_back=True)
    assert {} == memories.here
    found = [memories.recall((each, None, "me"), Connection()) for each in range(4)]
    assert [False, False, True, True] == [resumed for _, resumed in found]
    assert kept[2:] == [memory for memory, resumed in found if resumed]
    nobody, resumed = memories.recall(None, Connection())
    assert ([nobody], False) == (memories.leave(nobody, comes_back=True), resumed)
