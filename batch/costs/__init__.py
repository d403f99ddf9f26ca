"""What rows cost: prices, token counts, the ledger of a run, and the estimate before one."""
