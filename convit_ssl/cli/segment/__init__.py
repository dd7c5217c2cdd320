"""Parts of ``convit-ssl segment``."""
