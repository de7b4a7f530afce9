"""The second stages of two-stage systems: frames to frames four times the size, a network each."""
