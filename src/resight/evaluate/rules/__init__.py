"""A protocol applied: who is right for whom, parts, averages, objects, the legacy gallery."""
