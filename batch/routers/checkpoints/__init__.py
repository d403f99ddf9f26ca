"""Trained routers and their encoders on disk: where they are, and their format."""
