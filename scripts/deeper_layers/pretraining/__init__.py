"""The embedded model, trained from scratch."""
