"""Which images there are: in folders, lists and tables, with their labels and parts."""
