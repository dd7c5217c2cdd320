"""What is wrong with a collection, and what all of its images are."""
