"""Estimates of the memory that a run will take, compared with what the machine has."""
