"""The part of the benchmark on locks, fences and jobs.

One subject a file, in the order the data flows:

- ``contender``  what every contender can do
- ``commit``     lock many objects, publish a fence in all, unlock: `Exec`, `GpuVm.exec_lock`, sorted locks
- ``wake``       two threads that wake each other: `Fence`, `threading.Event`, the interpreter's lock
- ``jobs``       work for another thread: `Scheduler`, `ThreadPoolExecutor`, a queue
- ``cases``      what is measured, with whom
- ``selfcheck``  the proof, before any clock is read, that all of them do the work
- ``measure``    how it is measured
- ``report``     the tables
"""
