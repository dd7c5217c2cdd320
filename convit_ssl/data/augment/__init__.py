"""Augmentation: what it does, its draws, and the pipelines that do it."""
