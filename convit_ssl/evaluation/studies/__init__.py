"""Studies: several networks, label fractions and seeds in one table."""
