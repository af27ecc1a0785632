"""The neighbour graph: what a second look at search time and training without labels stand on."""
