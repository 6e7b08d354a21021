"""The benchmark of gpuvm: ``python -m bench.run`` in the root of the repository.

It has five parts. ``locking``, with locks, fences and jobs, ``paging``, with page tables and memory, and
``driver``, with nouveau's calls and engines, are packages made of ``sampling``; ``device``, with the system
calls of a program under ``gpuvm run``, is a package of its own. The files here measure mappings, one subject
a file, in the order the data flows:

- ``layouts``        the records that go in and come out
- ``workload``       random address spaces and the requests made of them
- ``contender``      what every contender can do
- ``contender_gpuvm``, ``contender_rust`` (with the crate in ``rivals``), ``contender_python`` (with
  ``sorted_space`` and ``interval_space``): who does it
- ``contenders``     their registry
- ``selfcheck``      the proof, before any clock is read, that all of them do the same
- ``cases``          what is measured
- ``measure``        how it is measured
- ``memory``         bytes a mapping, each in a process of its own
- ``report``         the tables

For all parts:

- ``machine``        on what it was measured
- ``targets``        what was to be reached
- ``table``          cells and tables
- ``page``           the page that is published
- ``run``            the command
"""
