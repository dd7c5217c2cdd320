"""Measuring a trunk: features, kNN, linear probes, fine-tuning pieces, studies.

Import from the modules; this package stays light because training imports it.
"""
