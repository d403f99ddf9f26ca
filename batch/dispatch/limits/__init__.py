"""What endpoints allow: configured limits, counted as each provider counts them, and limits learned while running."""
