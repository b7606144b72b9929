"""Whether training works: vital signs of the players, and mixtures whose modes are known."""
