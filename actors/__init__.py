"""The allocator as an actor, and the actors around it, on anyio: asyncio, uvloop and trio."""

__all__: list[str] = []
