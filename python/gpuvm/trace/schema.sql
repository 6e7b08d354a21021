-- The tables of a trace, version 1.
--
-- Times are nanoseconds since the recording began, on the machine's monotonic clock. Addresses, sizes and offsets are
-- bytes; ends are exclusive. SQLite's integers are signed: a number of 2^63 or more, which only refused calls have,
-- stands as itself minus 2^64. A call is known by its number, from 1 on in the order in which calls took effect; in a
-- trace of JSON Lines it is the number of its line. NULL: not known, or not yet.

CREATE TABLE about (           -- what is known of the recording
    key TEXT PRIMARY KEY,      -- 'gpuvm' the version that wrote it; 'program' its argv as JSON; 'begun' UTC, ISO 8601;
    value                      -- 'source': 'gpuvm record', or the name of the JSON Lines it was made from;
) WITHOUT ROWID;               -- 'status': the program's exit code, minus a signal; 'whole': 1 once recording ended in order

CREATE TABLE device (
    chip TEXT,                 -- such as 'TU102'
    chipset INTEGER,           -- such as 0x162
    vram INTEGER,
    gart INTEGER
);

CREATE TABLE clients (         -- an open of the device
    id INTEGER PRIMARY KEY,
    number INTEGER NOT NULL,   -- as recorded; it is not the id if an earlier open had the same number
    name TEXT,
    pid INTEGER,               -- who opened it
    program TEXT,              -- that process's name then
    opened INTEGER,            -- time
    closed INTEGER,            -- time; NULL: it was not
    kernel_addr INTEGER,       -- the kernel's part of its address space
    kernel_size INTEGER
);

CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    t INTEGER NOT NULL,        -- when it began
    took INTEGER,              -- how long it lasted
    client INTEGER NOT NULL,
    nr INTEGER NOT NULL,       -- the ioctl's number; -1: the open's last close
    ret INTEGER NOT NULL,      -- 0, or minus an errno
    args TEXT,                 -- arguments and answers that have no table: one JSON object, as JSON Lines have them
    call TEXT GENERATED ALWAYS AS (CASE nr /*calls*/ END) VIRTUAL
);

CREATE TABLE objects (         -- memory: a GEM object
    id INTEGER PRIMARY KEY,    -- the call that made it, or was the first to import it
    size INTEGER,              -- NULL: it was made elsewhere
    domain INTEGER,            -- where it may be: 2 VRAM, 4 GART
    align INTEGER,
    tile_mode INTEGER,
    tile_flags INTEGER,
    died INTEGER,              -- the call with which its last handle and mapping went
    born INTEGER GENERATED ALWAYS AS (id) VIRTUAL
);

CREATE TABLE handles (         -- a client's number for an object, as long as it had it
    born INTEGER PRIMARY KEY,  -- the call that gave it
    client INTEGER NOT NULL,
    handle INTEGER NOT NULL,
    object INTEGER NOT NULL,
    died INTEGER               -- the GEM_CLOSE, or the client's close
);

CREATE TABLE bind_ops (        -- what VM_BINDs asked for, refused ones too
    call INTEGER NOT NULL,
    i INTEGER NOT NULL,        -- from 0 on
    code INTEGER NOT NULL,     -- DRM_NOUVEAU_VM_BIND_OP_*
    flags INTEGER NOT NULL,    -- 0x100: sparse; the low byte is the PTE kind
    handle INTEGER NOT NULL,
    addr INTEGER NOT NULL,
    range INTEGER NOT NULL,
    bo_offset INTEGER NOT NULL,
    op TEXT GENERATED ALWAYS AS (CASE code WHEN 0 THEN 'map' WHEN 1 THEN 'unmap' END) VIRTUAL,
    PRIMARY KEY (call, i)
) WITHOUT ROWID;

CREATE TABLE mappings (        -- a part of an address space that showed a part of an object
    id INTEGER PRIMARY KEY,
    client INTEGER NOT NULL,
    addr INTEGER NOT NULL,
    range INTEGER NOT NULL,
    object INTEGER,            -- NULL: none, as handle 0 says
    bo_offset INTEGER NOT NULL,
    pte_kind INTEGER NOT NULL,
    born INTEGER NOT NULL,     -- the call that made it, by mapping, or by cutting another one
    died INTEGER               -- the call that unmapped or cut it
);

CREATE TABLE regions (         -- a sparse region
    id INTEGER PRIMARY KEY,
    client INTEGER NOT NULL,
    addr INTEGER NOT NULL,
    range INTEGER NOT NULL,
    born INTEGER NOT NULL,
    died INTEGER
);

CREATE TABLE ops (             -- what the manager emitted for them
    call INTEGER NOT NULL,
    i INTEGER NOT NULL,        -- from 0 on, in order
    asked INTEGER NOT NULL,    -- for which of the call's bind_ops
    code INTEGER NOT NULL,     -- 0 map, 1 unmap, 2 remap
    keep INTEGER NOT NULL,     -- 1: page-table entries may stay, for the same call maps the same there again
    mapping INTEGER NOT NULL,  -- of a map: the new one; else the one that goes
    prev INTEGER,              -- of a remap: the mapping that is left before the hole
    next INTEGER,              -- and the one behind it
    op TEXT GENERATED ALWAYS AS (CASE code WHEN 0 THEN 'map' WHEN 1 THEN 'unmap' ELSE 'remap' END) VIRTUAL,
    PRIMARY KEY (call, i)
) WITHOUT ROWID;

CREATE TABLE pushes (          -- the push buffers of EXECs
    call INTEGER NOT NULL,
    i INTEGER NOT NULL,
    va INTEGER NOT NULL,
    va_len INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    PRIMARY KEY (call, i)
) WITHOUT ROWID;

CREATE TABLE syncobjs (
    id INTEGER PRIMARY KEY,    -- the call that made it, or was the first to import it
    died INTEGER,              -- the call with which its last handle went
    born INTEGER GENERATED ALWAYS AS (id) VIRTUAL
);

CREATE TABLE syncs (           -- which sync objects a call was about
    call INTEGER NOT NULL,
    i INTEGER NOT NULL,
    role INTEGER NOT NULL,     -- 0 its job waits, 1 its job signals; of other calls 2: the one it is about, 3: the source of a transfer
    handle INTEGER NOT NULL,
    syncobj INTEGER,           -- NULL: there was none with this handle
    timeline INTEGER NOT NULL, -- 1: a point of a timeline; more than that: refused
    point INTEGER NOT NULL,    -- 0: the binary one
    PRIMARY KEY (call, i)
) WITHOUT ROWID;

CREATE TABLE jobs (            -- one for each accepted EXEC and asynchronous VM_BIND
    call INTEGER PRIMARY KEY,
    client INTEGER NOT NULL,
    channel INTEGER NOT NULL,  -- 0: the client's queue of binds
    queued INTEGER,            -- time
    waited INTEGER,            -- until the engine, or the page table, was touched for it
    took INTEGER,              -- from when it was queued until its fence was signalled
    error INTEGER,             -- errno with which that was, or 0
    context INTEGER,           -- its fence: of which timeline,
    seqno INTEGER,             -- and which of that
    started INTEGER GENERATED ALWAYS AS (queued + waited) VIRTUAL,
    done INTEGER GENERATED ALWAYS AS (queued + took) VIRTUAL
);

CREATE TABLE contexts (        -- timelines of fences
    id INTEGER PRIMARY KEY,
    timeline TEXT NOT NULL     -- its name
);

CREATE TABLE other_fences (    -- of what is no job in `jobs`: binds that are waited for, moves of objects
    context INTEGER NOT NULL,
    seqno INTEGER NOT NULL,
    call INTEGER,              -- for which it was
    made INTEGER NOT NULL,     -- time
    took INTEGER,              -- until it was signalled
    error INTEGER,             -- errno, or 0
    signalled INTEGER GENERATED ALWAYS AS (made + took) VIRTUAL,
    PRIMARY KEY (context, seqno)
) WITHOUT ROWID;

CREATE VIEW fences AS          -- all of them
    SELECT context, seqno, timeline, call, queued AS made, done AS signalled, error
    FROM jobs JOIN contexts ON contexts.id = context
    UNION ALL
    SELECT context, seqno, timeline, call, made, signalled, error
    FROM other_fences JOIN contexts ON contexts.id = context;

CREATE TABLE accesses (        -- of engines to memory
    call INTEGER NOT NULL,     -- the EXEC whose push did it; 0: not known
    id INTEGER NOT NULL,       -- from 1 on, over all calls
    t INTEGER NOT NULL,
    took INTEGER,
    client INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    engine TEXT NOT NULL,      -- 'host', 'copy', 'compute', ...
    code INTEGER NOT NULL,     -- 0 read, 1 write, 2 fetch of a push buffer, 3 atomic
    addr INTEGER NOT NULL,
    range INTEGER NOT NULL,    -- of a surface: from its first byte to its last
    access TEXT GENERATED ALWAYS AS (CASE code WHEN 0 THEN 'read' WHEN 1 THEN 'write' WHEN 2 THEN 'fetch' ELSE 'atomic' END) VIRTUAL,
    PRIMARY KEY (call, id)
) WITHOUT ROWID;

CREATE TABLE moves (           -- of objects between memories
    id INTEGER PRIMARY KEY,
    t INTEGER NOT NULL,
    took INTEGER,
    object INTEGER,
    size INTEGER NOT NULL,
    source TEXT,               -- 'vram', 'gart', 'cpu' (swapped out); NULL: it had none before
    target TEXT,               -- NULL: it is gone
    evicted INTEGER NOT NULL   -- 1: it had to make room
);

CREATE TABLE page_work (       -- what a call did to page tables, if anything
    call INTEGER PRIMARY KEY,
    written INTEGER NOT NULL,  -- entries
    cleared INTEGER NOT NULL,
    made INTEGER NOT NULL,     -- tables
    freed INTEGER NOT NULL
);

CREATE TABLE faults (
    id INTEGER PRIMARY KEY,
    t INTEGER NOT NULL,
    client INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    call INTEGER,              -- the EXEC whose push it was
    addr INTEGER,              -- NULL: no address had a part in it
    access TEXT,
    reason TEXT,
    cause TEXT NOT NULL,       -- as docs/faults.md has them
    engine TEXT NOT NULL,
    unmapped INTEGER,          -- the VM_BIND that took away what was there
    mapped INTEGER,            -- and the one that had mapped it
    report TEXT NOT NULL       -- all of the report, as JSON
);

CREATE TABLE call_totals (     -- the calls counted, so that nobody has to
    client INTEGER NOT NULL,
    nr INTEGER NOT NULL,
    ret INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    took INTEGER NOT NULL,     -- 0 if nobody knows
    first INTEGER NOT NULL,    -- call
    call TEXT GENERATED ALWAYS AS (CASE nr /*calls*/ END) VIRTUAL,
    PRIMARY KEY (client, nr, ret)
) WITHOUT ROWID;

CREATE TABLE totals (          -- what else there is of things, if there is any
    what TEXT PRIMARY KEY,     -- 'bind_ops' of accepted calls; 'map', 'unmap', 'remap'; 'mappings' and 'mapped_bytes':
    value INTEGER NOT NULL,    -- the most at a time; 'waited' and 'ran': the longest of jobs; 'failed_jobs';
    call INTEGER               -- 'ended_jobs'; 'entries_written', 'entries_cleared', 'tables_made', 'tables_freed'
) WITHOUT ROWID;               -- call: of the most and the longest, the first that had it

CREATE TABLE doubts (          -- accepted calls of which the tables do not show what they did
    call INTEGER PRIMARY KEY,
    why TEXT NOT NULL
);
