"""Dress rehearsals: local endpoints with limits, latency and faults, and the HTTP server that serves them."""
