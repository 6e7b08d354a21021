"""Page tables in the GPU's own format, and what can stand in for them."""
