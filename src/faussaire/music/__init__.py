"""Symbolic music: MIDI files and piano rolls in, phrases of several tracks out."""
