"""The second stages of two-stage systems: networks that enlarge frames to four times the size."""
