"""Files that a person writes, read with the line of every fault."""
