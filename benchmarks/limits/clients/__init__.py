"""The clients that are compared. Each runs in a process of its own and sends the same batch."""
