"""Traces: what it costs to write, to read, to open and to keep them, and to make reports of them.

One subject a file:

- ``overhead``   a program that is recorded, and not
- ``streaming_calls``, ``player.c``  that program
- ``synthetic``  a trace of any length, of ordinary calls
- ``forms``      other ways to keep what a trace tells
- ``files``      traces that are written once, for all who read them
- ``writing``    calls that are written
- ``reading``    calls that are read
- ``commands``   what somebody waits for at the terminal
- ``reports``    what is made of a whole trace
- ``size``       bytes a call
- ``cases``      what is measured, with whom
"""
