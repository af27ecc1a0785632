"""InsCLR in a stage: selection, mining, memory, and the evidence of it."""
