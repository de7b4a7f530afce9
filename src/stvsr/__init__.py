"""Space-time video super-resolution: trains, scores and applies Zooming Slow-Mo (Xiang et al., CVPR 2020)."""
