"""Sound: recordings in, short clips out."""
