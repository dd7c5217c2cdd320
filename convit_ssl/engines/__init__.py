"""From a command line to a finished run: configuration, launch, checkpoints, the screen."""
