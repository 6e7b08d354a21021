"""nouveau's driver: what its calls cost, and how fast its engines copy.

One subject a file:

- ``program``  the client that is measured, and its calls as bytes
- ``binds``    VM_BIND
- ``execs``    EXEC
- ``waits``    SYNCOBJ_WAIT
- ``streaming``  a recorded trace, end to end
- ``copies``   the copy engine, from line to line
- ``blocks``   the copy engine, to block-linear surfaces and from them
- ``cases``    what is measured, with whom
"""
