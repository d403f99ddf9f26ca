"""How routers are trained: one file per kind, on the data that `data` describes."""
