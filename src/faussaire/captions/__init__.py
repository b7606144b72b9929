"""Pictures with words: captions read and numbered, encoders of both, and the game that listens to words."""
