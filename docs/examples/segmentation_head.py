"""A segmentation head on the feature maps of a frozen trunk, through timm's `features_only`.

It learns which pixels of a digit are ink. The network is created by name in timm, and its weights
can come from a run, a checkpoint or any file that `load_trunk` reads.

python docs/examples/segmentation_head.py runs/demo --data digits
"""

import argparse

import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import convit_ssl.export.timm_models  # noqa: F401  adds convit_ssl_* to timm
from convit_ssl.data import as_trained, open_dataset
from convit_ssl.export import load_trunk
from convit_ssl.export.timm_models import timm_name


class Segmenter(nn.Module):
    """Feature maps of a frozen trunk, a 1 x 1 convolution over all of them, and upsampling."""

    def __init__(self, trunk):
        super().__init__()
        self.trunk = trunk.eval().requires_grad_(False)
        channels = sum(trunk.feature_info.channels())
        patch = trunk.feature_info.reduction()[0]
        self.head = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, 64, 1),
            nn.GELU(),
            nn.ConvTranspose2d(64, 1, patch, stride=patch),
        )

    def forward(self, images):
        """Logits (B, 1, H, W)."""
        with torch.no_grad():
            maps = self.trunk(images)
        return self.head(torch.cat(maps, dim=1))


def ink(images):
    """The target: pixels brighter than the image's mean."""
    grey = images.mean(dim=1, keepdim=True)
    return (grey > grey.mean(dim=(2, 3), keepdim=True)).float()


@torch.inference_mode()
def intersection_over_union(model, dataset):
    """IoU of ink over a whole data set."""
    model.eval()
    both = either = 0.0
    for images, _, _ in DataLoader(dataset, batch_size=128):
        predicted, target = model(images) > 0, ink(images) > 0
        both += float((predicted & target).sum())
        either += float((predicted | target).sum())
    return both / either


def main():
    """Train the head for a few epochs and print its IoU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trunk", help="run folder, checkpoint or exported weights")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--subset", default="fraction=0.3,seed=0")
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()
    torch.manual_seed(0)

    source = load_trunk(args.trunk, num_classes=0)
    # The same network under timm's interface: maps of blocks 1, 3 and 5, patch_size apart.
    trunk = timm.create_model(
        timm_name(source.provenance["variant"]),
        features_only=True,
        out_indices=(1, 3, 5),
        img_size=source.config.img_size,
        patch_size=source.config.patch_size,
        in_chans=source.config.in_chans,
    )
    missing, _ = trunk.model.load_state_dict(source.state_dict(), strict=False)
    assert not missing, missing

    transform, reading = as_trained(source)
    train = open_dataset(args.data, args.data_dir, "train", transform, args.subset, reading=reading)
    val = open_dataset(args.data, args.data_dir, "val", transform, reading=reading)
    model = Segmenter(trunk)
    optimiser = torch.optim.AdamW(model.head.parameters(), lr=3e-3)
    for _ in range(args.epochs):
        model.head.train()
        for images, _, _ in DataLoader(train, batch_size=64, shuffle=True):
            loss = F.binary_cross_entropy_with_logits(model(images), ink(images))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    iou = intersection_over_union(model, val)
    print(f"ink of {len(val)} images, intersection over union: {100 * iou:.1f} %")


if __name__ == "__main__":
    main()
