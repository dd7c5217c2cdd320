"""Trunks in and out: load any checkpoint, write for other libraries, audit what is inside."""

from convit_ssl.export.load import Provenance, load_trunk, reading_of, resized
from convit_ssl.models.fingerprint import weights_fingerprint

__all__ = ["Provenance", "load_trunk", "reading_of", "resized", "weights_fingerprint"]
