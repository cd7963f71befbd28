"""The default that needs no download: real digits, a small Stable Diffusion and a small CLIP.

Nothing here is a stand-in. GENERATOR is a `StableDiffusionPipeline` folder and SCORER an open_clip
folder, loaded by the code that loads SDXL and ViT-B/32. STUDENT is a second open_clip folder, of
another seed and other web images, for fine-tuning: the CLIP that learns is not the CLIP that
filters. They were trained by `tools/train_embedded.py` on the web half of `digits`, and their
weights, logs and card are beside them. They know digits and nothing else.
"""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
GENERATOR = WEIGHTS / "generator"
SCORER = WEIGHTS / "scorer"
STUDENT = WEIGHTS / "student"
