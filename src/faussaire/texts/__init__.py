"""Texts: sentences as rows of token numbers, and what they are measured by."""
