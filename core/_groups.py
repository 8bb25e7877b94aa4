"""A group: a limit that the sets and groups below it share."""

from attrs import define

__all__: list[str] = []


@define(eq=False)
class Group:
    """A tenant or a department: what is given to those below it is taken from its limit."""

    name: str
    parent: "Group | None"
    limit: int
    used: int = 0
    """The quotas of its sets and the limits of its groups; 0 only if it has neither."""

    @property
    def depth(self) -> int:
        """How many groups it is in, itself included."""
        depth, group = 1, self.parent
        while group is not None:
            depth, group = depth + 1, group.parent
        return depth
