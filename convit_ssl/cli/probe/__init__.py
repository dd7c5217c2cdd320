"""What ``knn``, ``linear``, ``features`` and other commands on features share."""
