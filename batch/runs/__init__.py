"""The run directory: what is stored of a run, so that no paid answer is lost or paid for twice."""
