"""What a job, its rows and its reports look like: frozen pydantic models, no I/O."""
