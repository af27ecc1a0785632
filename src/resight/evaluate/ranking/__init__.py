"""What the ranks stand on: unit rows and exact similarities, compiled loops, ragged lists."""
