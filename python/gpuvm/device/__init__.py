"""The virtual device: a DRM node for unmodified programs, served by the driver of the floor below."""
