"""Where the processes of a run go, how they find each other, and how they leave."""
