"""How good routing is: pure functions from scores and judged quality to figures. No I/O."""
