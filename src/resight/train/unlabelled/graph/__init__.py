"""The neighbour graph in a stage: targets by diffusion, the loss towards them, the evidence."""
