"""The servers that enforce limits and log each request, one process each. They import nothing of `batch`."""
