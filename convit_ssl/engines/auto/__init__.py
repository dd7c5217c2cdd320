"""``config=convit_auto``: a short race on a part of train chooses the method."""
