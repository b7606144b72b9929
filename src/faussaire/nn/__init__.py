"""Layers that three or more families use identically."""
