"""Files whose damage is noticed."""
