"""Decoding image files: the stored values, then 8-bit RGB."""
