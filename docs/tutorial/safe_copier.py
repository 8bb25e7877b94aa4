"""The driver of copier.py, mended: it survives a crash at any moment."""

from copier import Copier

from ioasid.core import Event, Resync


class SafeCopier(Copier):
    """The same device; what it has programmed is compared with every Resync."""

    async def on_event(self, message: Event | Resync) -> None:
        if isinstance(message, Resync):
            self.table.update(message)
            bound = self.table.bindings.values()
            self.hardware = {each.spid: each.ioasid for each in bound}
        else:
            await super().on_event(message)
