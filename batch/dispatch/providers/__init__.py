"""What sets providers apart: a record for each, in a file of its own."""
