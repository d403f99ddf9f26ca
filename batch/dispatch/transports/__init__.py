"""How requests reach servers, and what servers answer, translated into completions and our errors."""
