"""Memory that is real: objects, where they are placed, and what is moved out of the way for them.

- ``aperture``: the words for where memory is
"""

from gpuvm.mem.aperture import Aperture, Domain, Extent

__all__ = ["Aperture", "Domain", "Extent"]
