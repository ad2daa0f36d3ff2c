"""From a file of one-minute bars to clean bars: reading, times, sessions, faults."""
