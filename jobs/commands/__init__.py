"""The work of each command, apart from how its outcome is shown."""
