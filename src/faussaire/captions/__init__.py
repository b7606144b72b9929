"""Pictures with words: captions read and numbered, encoders of both, and a game that listens."""
