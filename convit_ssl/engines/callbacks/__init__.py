"""What runs around the training steps: progress, records, and checks of the features."""
