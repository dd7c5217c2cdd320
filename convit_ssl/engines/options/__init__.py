"""From files and command line to resolved options and a plan."""
