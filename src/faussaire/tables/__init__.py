"""Tables: rows of numbers, dates and categories. Reading, normalising, drawing, writing, measuring."""
