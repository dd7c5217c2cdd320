"""From the bytes of an image file to its numbers, and from these to 8-bit RGB."""
