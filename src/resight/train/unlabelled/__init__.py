"""Training without labels: stages, each with a candidate pool, memory banks and evidence."""
