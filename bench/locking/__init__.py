"""The part of the benchmark on locks, fences and jobs.

- ``commit``  lock many objects, publish a fence in all, unlock: `Exec`, `GpuVm.exec_lock`, sorted locks
- ``wake``    two threads that wake each other: `Fence`, `threading.Event`, the interpreter's lock
- ``jobs``    work for another thread: `Scheduler`, `ThreadPoolExecutor`, a queue
- ``cases``   what is measured, with whom
"""
