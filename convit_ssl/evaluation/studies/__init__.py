"""Studies: several networks, fractions of the labels and seeds, with one table."""
