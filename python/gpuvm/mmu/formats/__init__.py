"""Formats of page tables: data for a walker that knows none of them."""
