"""Whose fault an error is: a row's or an endpoint's, found by what the same endpoint said to other rows."""
