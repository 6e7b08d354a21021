"""Books about what calls make: objects and their handles, sync objects, and files that share them.

What a number means is told by the calls before. A file's number stands for what was exported last under it;
what nobody exported was made elsewhere, and is new.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from gpuvm.sync.syncobj_table import FD_TO_HANDLE_IMPORT_SYNC_FILE, HANDLE_TO_FD_EXPORT_SYNC_FILE
from gpuvm.trace import recorded
from gpuvm.trace.batches import Batch
from gpuvm.trace.call_rows import SyncRow
from gpuvm.trace.database import signed


@dataclass(slots=True, eq=False, weakref_slot=True)
class Thing:
    """An object or a sync object. ``id`` is the call that made it, ``users`` its handles and mappings."""

    id: int
    users: int = 0


@dataclass(slots=True)
class Handles:
    """What one client's numbers mean now, with the call that gave them."""

    objects: dict[int, Thing] = field(default_factory=dict)
    given: dict[int, int] = field(default_factory=dict)
    syncobjs: dict[int, Thing] = field(default_factory=dict)


class ObjectBook:
    """Objects, their handles, and when they died."""

    def __init__(self) -> None:
        columns = ("size", "domain", "align", "tile_mode", "tile_flags", "died")
        self.objects: Final = Batch("objects", "id", *columns)
        self.handles: Final = Batch("handles", "born", "client", "handle", "object", "died")
        self._files: Final[dict[int, Thing]] = {}
        self._offsets: Final[dict[int, Thing]] = {}

    def made(self, call: int, client: int, handles: Handles, record: recorded.GemNew) -> Thing:
        """A GEM_NEW was accepted."""
        thing = Thing(call)
        rest = (record.domain, record.align, record.tile_mode, record.tile_flags)
        self.objects.add(call, [call, signed(record.size), *rest, None])
        self._name(call, client, handles, record.handle, thing)
        return thing

    def exported(self, handles: Handles, record: recorded.GemExport) -> None:
        """A file names the object from now on."""
        thing = handles.objects.get(record.handle)
        if record.fd is not None and thing is not None:
            self._files[record.fd] = thing

    def imported(self, call: int, client: int, handles: Handles, record: recorded.GemImport) -> None:
        """A handle was given for a file; one that was there already means what it meant."""
        if record.handle in handles.objects:
            return
        thing = None if record.fd is None else self._files.get(record.fd)
        if thing is None:
            thing = Thing(call)
            self.objects.add(call, [call, None, None, None, None, None, None])
        elif thing.users == 0:  # only the file had kept it
            self.objects.change(thing.id, "died", None)
        self._name(call, client, handles, record.handle, thing)

    def _name(self, call: int, client: int, handles: Handles, handle: int, thing: Thing) -> None:
        if handle in handles.objects:
            self.closed(call, handles, handle)
        handles.objects[handle] = thing
        handles.given[handle] = call
        thing.users += 1
        self.handles.add(call, [call, client, handle, thing.id, None])

    def closed(self, call: int, handles: Handles, handle: int) -> None:
        """A handle means nothing any more."""
        thing = handles.objects.pop(handle, None)
        if thing is not None:
            self.handles.change(handles.given.pop(handle), "died", call)
            self.unused(call, thing)

    def unused(self, call: int, thing: Thing) -> None:
        """A handle or a mapping of the object is gone."""
        thing.users -= 1
        if thing.users == 0:
            self.objects.change(thing.id, "died", call)

    def at(self, offset: int, thing: Thing) -> None:
        """``offset`` in the file for mmap is the object's."""
        self._offsets[offset] = thing

    def by_offset(self, offset: int) -> Thing | None:
        """The last object that had the place."""
        return self._offsets.get(offset)

    def close_all(self, call: int, handles: Handles) -> None:
        """The client is closed."""
        for handle in [*handles.objects]:
            self.closed(call, handles, handle)


class SyncobjBook:
    """Sync objects: which handles are which, and when they died."""

    def __init__(self) -> None:
        self.syncobjs: Final = Batch("syncobjs", "id", "died")
        self._files: Final[dict[int, Thing]] = {}

    def note(self, call: int, handles: Handles, record: recorded.Record) -> None:
        """What an accepted call gives, before it is asked which sync objects it was about."""
        match record:
            case recorded.SyncobjCreate() if record.handle is not None:
                self._name(call, handles, record.handle, self._new(call))
            case recorded.SyncobjImport() if not record.flags & FD_TO_HANDLE_IMPORT_SYNC_FILE:
                if record.handle is not None:
                    thing = self._files.get(record.fd) or self._new(call)
                    if thing.users == 0:
                        self.syncobjs.change(thing.id, "died", None)
                    self._name(call, handles, record.handle, thing)
            case recorded.SyncobjExport() if record.fd is not None:
                shared = handles.syncobjs.get(record.handle)
                if record.flags & HANDLE_TO_FD_EXPORT_SYNC_FILE or shared is None:
                    self._files.pop(record.fd, None)
                else:
                    self._files[record.fd] = shared

    def _new(self, call: int) -> Thing:
        self.syncobjs.add(call, [call, None])
        return Thing(call)

    def _name(self, call: int, handles: Handles, handle: int, thing: Thing) -> None:
        self.destroyed(call, handles, handle)
        handles.syncobjs[handle] = thing
        thing.users += 1

    def destroyed(self, call: int, handles: Handles, handle: int) -> None:
        """The handle means nothing any more."""
        thing = handles.syncobjs.pop(handle, None)
        if thing is not None:
            thing.users -= 1
            if thing.users == 0:
                self.syncobjs.change(thing.id, "died", call)

    def find(self, handles: Handles, row: SyncRow) -> int | None:
        """The sync object's id; None: the client has none of this number."""
        thing = handles.syncobjs.get(row.handle)
        return None if thing is None else thing.id

    def close_all(self, call: int, handles: Handles) -> None:
        """The client is closed."""
        for handle in [*handles.syncobjs]:
            self.destroyed(call, handles, handle)
