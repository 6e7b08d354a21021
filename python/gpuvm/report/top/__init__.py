"""The numbers and the terminal view of ``gpuvm top``."""
