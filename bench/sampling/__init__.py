"""Samples of what contenders do for the same case, and their tables.

One subject a file, in the order the data flows:

- ``contender``  what every contender can do
- ``case``       what a table is made of
- ``selfcheck``  the proof, before any clock is read, that all of them do the work
- ``measure``    how it is measured
- ``report``     the tables
"""
