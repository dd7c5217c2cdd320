"""Self-supervised pretraining of ConViT (arXiv:2103.10697) in VISSL style.

Importing this package loads nothing heavy; take what you need from its parts,
for example ``from convit_ssl.models import convit_small``.
"""

__version__ = "0.1.0"
