"""Texts: invented, read from files or the hub, tokenised, packed."""
