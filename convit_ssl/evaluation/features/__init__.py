"""Features of images: extracted once, kept, and written as tables."""
