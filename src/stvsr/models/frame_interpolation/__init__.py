"""The first stages of two-stage systems: two frames to the one between, a network each."""
