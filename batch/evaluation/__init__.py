"""What a router is worth on prompts whose answers were judged. Numbers only: no model is loaded here."""
