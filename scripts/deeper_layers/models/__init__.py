"""Models in memory: loaded, checked, layer by layer, with what a healing wrote."""
