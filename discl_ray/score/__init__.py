"""Made images get their CLIP scores here: the open_clip adapter and the Ray actor."""
