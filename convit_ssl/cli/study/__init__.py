"""Parts of ``convit-ssl study``."""
