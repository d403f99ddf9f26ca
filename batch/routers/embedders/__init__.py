"""What turns prompts into vectors: local encoders, in fp32 and int8, and embedding endpoints."""
