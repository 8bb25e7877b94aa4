"""The bounds on what a client can cause, each with its default."""

from attrs import frozen

__all__ = ["Limits"]


@frozen(kw_only=True)
class Limits:
    """What one server allows; in its configuration the table `[limits]` has the same names.

    Whoever is past one is refused with `TooMany` or `TooLarge` (the first four: the connection is),
    or not read from until there is room; others are not concerned.
    """

    connections: int = 4096
    """Connections at once, of everybody."""
    connections_per_user: int = 1024
    """Connections at once of one user."""
    hello_within: float = 10.0
    """Seconds in which a connection has to say `Hello`."""
    backlog: int = 1 << 17
    """Messages for one connection that wait to be sent; who reads so much slower is cut off."""
    requests: int = 512
    """Requests of one connection under way at once, or messages that it acknowledges; beyond that
    it is not read from."""
    waits: int = 512
    """Requests of one client that wait for a reclaim, besides."""
    sessions: int = 1024
    """Sessions of one connection."""
    subscriptions: int = 256
    """Subscriptions of one connection."""
    queue_size: int = 1 << 16
    """The largest `queue_size` of a subscription."""
    remembered_clients: int = 256
    """Clients without a connection whose answers are kept for when they come back."""
