"""Completion scripts for shells, made from the verbs' parsers. They run in the shell alone, without gpuvm."""
