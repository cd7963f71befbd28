"""Tables over several rows and seeds, and sweeps: whole studies, above the two phases."""
