"""An allocator that decides again what another one decided, and can be asked why."""

from typing import Any

from ioasid.core import Allocator, Explain, Explanation, IoasidRange, IoasidRecord, Request
from ioasid.core._space import runs

__all__: list[str] = []


class Replica(Allocator):
    """The core, which is asked in nobody's name."""

    def look(self, request: Request) -> Any:
        """Return what a request that only looks something up is answered with.

        Raises what it is refused with.
        """
        nobody: Any = None
        return self._readers[type(request)](nobody, request)

    def explain(self, ioasid: int) -> Explanation:
        """Return why a live ID is not back in the pool."""
        explanation: Explanation = self.look(Explain(ioasid))
        return explanation

    def live(self, sid: int) -> list[IoasidRange]:
        """Return the IDs that a set has, ascending, as ranges."""
        spans: list[IoasidRange] = []
        for first, word in self._tables.sets[sid].words():
            for low, high in runs(word, first):
                if spans and spans[-1].last + 1 == low:
                    spans[-1] = IoasidRange(spans[-1].first, high)
                else:
                    spans.append(IoasidRange(low, high))
        return spans

    def records(self, sid: int) -> list[IoasidRecord]:
        """Return the records of a set's IDs of which there is more to say, ascending."""
        found = map(self.record, sorted(self._tables.sets[sid].records))
        return [each for each in found if each is not None]

    def has(self, holder: str) -> bool:
        """Tell whether there is a holder of this name, live or suspended."""
        return holder in self._tables.holders

    def has_subscription(self, number: int) -> bool:
        """Tell whether there is a subscription, attached or left behind by a crash."""
        return number in self._tables.subscriptions
