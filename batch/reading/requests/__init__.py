"""The kinds of requests that rows ask for, as people write them."""
