"""Scores of features that need no labels."""
