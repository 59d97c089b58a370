"""Which layers go: sets of layers, the strategies that choose them, their choices. No torch."""
