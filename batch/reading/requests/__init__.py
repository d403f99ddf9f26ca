"""The shapes in which people write requests, one module per shape or per part of a request."""
