"""A day of measurements: what is asked, one step after the other, and what became of each."""
