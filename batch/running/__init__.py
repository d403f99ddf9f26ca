"""What wires a run: the stages, the engines they run on, the dispatcher thread, and the pipeline that drives them."""
