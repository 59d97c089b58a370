"""Models in memory: loaded, checked, layer by layer, with adapters."""
