"""Locking many objects, and a whole address space."""

from gpuvm.exec.exec import Attempt, Exec, ExecFlags, ExecStatistics, Lockable
from gpuvm.exec.gpuvm import GpuVm, ResvObject

__all__ = ["Attempt", "Exec", "ExecFlags", "ExecStatistics", "GpuVm", "Lockable", "ResvObject"]
