"""Sphinx: pages in Markdown, the API from the docstrings."""

from importlib import metadata

project = "gpuvm"
author = "gpuvm developers"
project_copyright = author
release = metadata.version("gpuvm")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_member_order = "bysource"
napoleon_use_ivar = True  # else an attribute named in the docstring and in the class is there twice
myst_heading_anchors = 3
suppress_warnings = ["ref.python"]  # of attributes that have the name of a builtin

html_theme = "furo"
html_title = "gpuvm"
