"""Figures that say how good a generator is, each with its provenance."""
