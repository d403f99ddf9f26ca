"""One module per way in which the rows of a file are written, and what tells those ways apart."""
