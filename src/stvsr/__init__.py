"""Space-time video super-resolution: a re-creation of Zooming Slow-Mo (CVPR 2020) and a house around it."""
