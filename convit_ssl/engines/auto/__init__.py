"""The race of ``config=convit_auto``: a short one on a part of train chooses the method."""
