"""The engine: it knows no family, no kind of data and no console."""
