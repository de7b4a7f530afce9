"""OpenCV on one thread: loader workers are the unit of parallelism, and its own threads do not survive a fork."""

import cv2

__all__ = ["cv2"]

cv2.setNumThreads(0)
