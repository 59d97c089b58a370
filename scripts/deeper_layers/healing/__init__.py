"""Healing a cut model."""
