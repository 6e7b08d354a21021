"""The virtual device: what a system call costs, caught and not caught.

One subject a file:

- ``client.c``  the program that is measured, by itself, whoever answers its calls
- ``bare.c``    the floor: a supervisor that receives and answers, and does nothing
- ``cases``     the calls, and what was to be reached
- ``ways``      who answers them: the kernel, drm-shim, bare.c, gpuvm
- ``measure``   how it is measured
- ``report``    the table
"""
