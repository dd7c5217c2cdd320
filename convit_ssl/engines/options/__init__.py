"""From files and a command line to the options of a run, and a plan that can run."""
