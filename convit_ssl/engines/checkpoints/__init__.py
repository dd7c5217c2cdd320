"""Checkpoints: writing, finding the newest intact one, resuming."""
