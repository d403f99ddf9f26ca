"""Which endpoint takes the next request, and which row that is."""
