"""Sends rows to endpoints: at their limits, never over them, each row to exactly one end."""
