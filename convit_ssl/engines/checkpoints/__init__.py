"""Checkpoints: written whole, found again, and resumed from."""
