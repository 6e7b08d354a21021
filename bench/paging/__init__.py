"""The part of the benchmark on page tables and memory.

- ``tables``         page tables to measure, in an array of their own
- ``fills``          entries written and cleared: `PageTable`, a walker in Python, the memory's own speed
- ``one_page``       a page at a time
- ``lookups``        addresses translated, one by one and as runs
- ``copies``         bytes moved through page tables, beside `memcpy`
- ``buddies``        blocks allocated and freed
- ``python_walker``, ``python_buddy``  the rivals
- ``cases``          what is measured, with whom
"""
