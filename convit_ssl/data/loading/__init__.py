"""Reading samples during training and evaluation: storage, cache, order, retries."""
