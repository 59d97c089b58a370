"""A variant of the study to deploy: weights, model card, upload."""
