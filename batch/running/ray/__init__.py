"""Ray: a cluster that was there or is started for the run, scoring spread over it, and the dispatcher as an actor."""
