"""Files that survive kills and power cuts: written whole or not at all, locked, and checked for damage."""
