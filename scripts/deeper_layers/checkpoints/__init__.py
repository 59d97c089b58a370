"""Checkpoints as files: read, checked, adopted, cut, fetched; GGUF headers. No tensor is loaded."""
