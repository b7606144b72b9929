"""Latent spaces of trained models: pictures sought in them, directions found, pictures moved along.

`editor.py` is what the commands and Python use; the rest are its parts:

- `space.py`: z, W or W+ of a family as one thing: codes in, pictures out.
- `likeness.py`: how like two pictures are, in pixels and through a network that knows pictures.
- `projection.py`: the code of a picture, by optimisation. `tuning.py`: the generator moved to it.
- `directions.py`: found by principal components, in closed form, or from labels, which `labels.py`
  gives to samples; `shelf.py` keeps them.
- `photos.py`: photographs made like the pictures that a model was trained on.
"""
