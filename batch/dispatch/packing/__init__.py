"""Several embedding rows in one HTTP request."""
