"""Which pixels or patches a classifier's answer rests on, by Captum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from convit_ssl.analysis.images import PreparedImage
from convit_ssl.errors import UserError
from convit_ssl.models import ConViT

METHODS = ("integrated_gradients", "occlusion")


@dataclass(frozen=True)
class Attribution:
    """The share of each place in the score of one class.

    Attributes:
        image: what was classified.
        method: "integrated_gradients" or "occlusion".
        target: index of the class whose score is explained.
        probability: softmax probability of that class.
        values: signed share of each place; positive speaks for the class. Pixels for integrated
            gradients, patches for occlusion.
        residual: integrated gradients alone: |sum of shares - (score - score of the baseline)|
            over |score - score of the baseline|, which completeness makes zero.
    """

    image: PreparedImage
    method: str
    target: int
    probability: float
    values: Float[np.ndarray, "rows columns"]
    residual: float | None


def attribute(
    model: ConViT,
    image: PreparedImage,
    method: str = "integrated_gradients",
    target: int | None = None,
    steps: int = 32,
) -> Attribution:
    """Explain one prediction.

    Args:
        model: with a classifier, in eval mode.
        image: from `prepare_image`.
        method: "integrated_gradients" from a grey image (arXiv:1703.01365), or "occlusion" of
            one patch at a time.
        target: class index; the predicted class by default.
        steps: of the path integral.

    Raises:
        UserError: no classifier, an unknown method, or Captum is not installed.
    """
    if not model.num_classes:
        raise UserError("attribution needs a classifier, but this checkpoint has none")
    if method not in METHODS:
        raise UserError(f"attribution method {method!r}: choose one of {', '.join(METHODS)}")
    try:
        from captum.attr import IntegratedGradients, Occlusion
    except ImportError:
        raise UserError("attribution needs Captum: pip install 'convit_ssl[report]'") from None
    device = next(model.parameters()).device
    pixels = image.pixels[None].to(device)
    with torch.no_grad():
        logits = model(pixels)[0].float()
    chosen = int(logits.argmax()) if target is None else target
    residual = None
    if method == "integrated_gradients":
        shares, delta = IntegratedGradients(model).attribute(
            pixels,
            target=chosen,
            n_steps=steps,
            internal_batch_size=8,
            return_convergence_delta=True,
        )
        values = shares[0].sum(dim=0)
        residual = abs(float(delta)) / max(abs(float(values.sum() - delta)), 1e-12)
    else:
        patch = model.config.patch_size
        window = (pixels.shape[1], patch, patch)
        shares = Occlusion(model).attribute(
            pixels,
            sliding_window_shapes=window,
            strides=window,
            target=chosen,
            perturbations_per_eval=8,
        )
        values = shares[0, 0, ::patch, ::patch]
    probability = float(logits.softmax(dim=0)[chosen])
    return Attribution(
        image, method, chosen, probability, values.detach().float().cpu().numpy(), residual
    )
