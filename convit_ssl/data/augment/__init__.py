"""Augmentation: descriptions, random draws, and the pipelines that apply them."""
