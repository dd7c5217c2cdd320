"""Duplicates, leaks, damaged images, and statistics of a whole collection."""
