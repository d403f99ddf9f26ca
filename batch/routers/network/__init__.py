"""Runs texts through local neural networks in batches, without computing what padding would cost."""
