"""Checkpoints as files: read, checked, adopted, cut, fetched. No tensor is loaded."""
