"""Samples for training and evaluation: read, cached, ordered."""
