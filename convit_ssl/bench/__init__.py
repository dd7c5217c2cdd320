"""Side-by-side speed and memory: models, training steps, input pipelines, scaling."""
