"""The built-in data sets, and those of plugins."""
