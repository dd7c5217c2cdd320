"""Probes of frozen features: nearest neighbours and linear classifiers."""
