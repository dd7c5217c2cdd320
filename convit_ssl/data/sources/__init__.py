"""Built-in data sets, and those registered by plugins."""
