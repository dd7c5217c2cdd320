"""An augmentation of your own: dust on the lens, a few dark spots in each view.

Run: convit-ssl train config=convit_dino plugins=own_augmentation.py augmentation.own=[dust]
         data=folder data_dir=/images run=cpu trunk=convit_nano
"""

import numpy as np

from convit_ssl import register_augmentation


@register_augmentation("dust")
def dust(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Up to five spots of a twentieth of the view's side, half as bright."""
    changed = pixels.copy()
    height, width = pixels.shape[:2]
    side = max(height // 20, 1)
    for _ in range(random.integers(0, 6)):
        top, left = random.integers(0, height), random.integers(0, width)
        changed[top : top + side, left : left + side] //= 2
    return changed
