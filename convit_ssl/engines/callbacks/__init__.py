"""What happens around training steps: the screen, the record, the checks of features."""
