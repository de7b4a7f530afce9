"""The first stages of two-stage systems: networks that interpolate the frame between two."""
