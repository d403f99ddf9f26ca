"""The engine: reads, scores, plans, dispatches, stores. No argv, no environment, no printing."""
