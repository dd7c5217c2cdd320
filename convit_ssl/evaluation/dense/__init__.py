"""Segmentation with frozen patch features."""
