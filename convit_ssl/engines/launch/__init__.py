"""Starting a run: devices, processes, SLURM, signals, failures."""
