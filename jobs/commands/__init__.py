"""What the commands do, apart from how it is shown."""
