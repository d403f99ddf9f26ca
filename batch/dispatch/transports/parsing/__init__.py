"""What servers write, read: codes, waits, usage, JSON that is nearly JSON, and event streams."""
