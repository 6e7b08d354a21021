"""The nouveau driver, so far: an address space whose binds are written into page tables."""
