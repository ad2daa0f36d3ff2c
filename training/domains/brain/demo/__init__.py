"""Demo data: a simulated film and the BOLD of four subjects who watch it."""
