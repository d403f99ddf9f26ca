"""Files of labels, graded answers and earlier results, read as what routers are trained on."""
