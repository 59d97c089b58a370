"""What strategies choose by, measured on a model."""
