"""The parts of a dress rehearsal: HTTP server, token buckets, answers, and the endpoint that joins them."""
