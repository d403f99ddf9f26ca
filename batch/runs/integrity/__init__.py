"""What a run's journals must hold, and journals that are not in their places."""
