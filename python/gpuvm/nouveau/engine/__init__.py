"""Engines: what executes the push buffers of a channel.

- ``processor``: a channel's front end; decoding and the methods' state are in the core
- ``engine``: what methods of one class go to; ``counts`` of what was sent and done
- ``host``: semaphores and binding, by the front end itself
- ``copy``, ``copy_state``, ``block_linear``: the copy engine, what its state says, surfaces
- ``report_semaphore``, ``inline_to_memory``: what is executed of 3D, compute and class a140
- ``semaphore``, ``semaphores``: writing and waiting, those who wait
- ``memory``: accesses that fault
- ``classes``, ``fault``: names and numbers; how a push ends early
- ``push_buffer``: making pushes
"""

from gpuvm.nouveau.engine.classes import AMPERE, TURING, Classes
from gpuvm.nouveau.engine.counts import MethodCounts
from gpuvm.nouveau.engine.fault import EngineFault, Stopped
from gpuvm.nouveau.engine.processor import Processor
from gpuvm.nouveau.engine.semaphores import SemaphoreWaits

__all__ = [
    "AMPERE",
    "TURING",
    "Classes",
    "EngineFault",
    "MethodCounts",
    "Processor",
    "SemaphoreWaits",
    "Stopped",
]
