"""An evaluator of your own: how often the nearest other image of val has the same class.

Run: convit-ssl evaluate runs/demo --data digits --plugins own_evaluator.py --with purity
"""

import torch

from convit_ssl import FeatureSet, register_evaluator


@register_evaluator("purity")
def purity(train: FeatureSet, val: FeatureSet) -> dict[str, float]:
    """Metrics by name, from features (N, D) and targets (N,); -1 marks images without a label."""
    features = torch.nn.functional.normalize(torch.tensor(val.features).float(), dim=1)
    similarity = features @ features.T
    similarity.fill_diagonal_(-1.0)
    targets = torch.as_tensor(val.targets)
    same = targets[similarity.argmax(dim=1)] == targets
    return {"purity": float(same[targets >= 0].float().mean())}
