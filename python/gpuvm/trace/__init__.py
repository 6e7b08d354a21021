"""The recorded stream: what was asked of an address space, read back and replayed.

Two kinds of files hold such a stream. A *trace* is JSON Lines, one recorded ioctl a line
(`jsonl` reads it into the records of `recorded`, by the table of `call_fields`; `replay` gives each
client its own space). A *request file* is the line language of `requests` (`session` answers it).
`snapshot` takes either and stops at a line: one space, ready to be looked at.

`driver_replay` makes every call of a trace through the nouveau driver and compares the results:
`driver_client` and `driver_syncobjs` make them, `numbering` knows what handles are called here,
`shared_files` what descriptors stand for, `difference` says what was not as recorded.

`memory_replay` makes a trace's binds in real memory and page tables: `table_counts` with room for
everything, `eviction_replay` with little VRAM, where it matters what a call `uses`. `memory_snapshot`
is the space at a line with its page tables.

Every defect of a file is one `TraceError` that names file, line and column.
"""
