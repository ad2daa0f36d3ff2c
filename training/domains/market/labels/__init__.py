"""What happened after each decision: which barrier the price touched first, after costs."""
