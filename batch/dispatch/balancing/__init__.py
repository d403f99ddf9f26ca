"""Which rows go to which endpoints."""
