"""Finding images in folders, lists and tables, with labels, groups and splits."""
