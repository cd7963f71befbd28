"""Folders of one small image under many names, listed as `imagefolder` does."""

from pathlib import Path

import numpy as np

from discl_ray.core.images import encode_image
from discl_ray.data.config import ImageFolderConfig
from discl_ray.data.imagefolder import imagefolder
from discl_ray.data.listing import Listing

PNG = encode_image(np.zeros((2, 2, 3), np.uint8), "png")


def lay(root: Path, *paths: str) -> Path:
    """Writes the image under each path below `root`."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(PNG)
    return root


def listed(root: Path, **config: object) -> Listing:
    """The listing of `root` with other keys of its configuration."""
    return imagefolder(ImageFolderConfig.model_validate({"root": str(root), **config}), 0)
