"""What wires a run."""
