"""What rows cost: prices, token counts, the ledger of a run, and the estimate of a run."""
