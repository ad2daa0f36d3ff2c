"""One-minute bars in; models of which barrier the price touches first, and an honest answer about their edge."""
