"""The Ray cluster that a run starts for itself: its folder, and the look at whether it is still there."""
