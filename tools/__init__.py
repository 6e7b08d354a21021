"""What a working copy is built and kept up to date with."""
