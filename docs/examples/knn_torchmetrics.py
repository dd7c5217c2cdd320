"""k-nearest-neighbour accuracy with torchmetrics, for a trunk that is loaded by timm alone.

Export the trunk first; the script itself does not import convit_ssl. torchvision reads
8-bit images only; `convit-ssl knn` reads all formats as in training.

convit-ssl export runs/demo --to timm --out exported
python docs/examples/knn_torchmetrics.py exported/timm images
"""

import argparse

import timm
import torch
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.functional import pairwise_cosine_similarity
from torchvision.datasets import ImageFolder


@torch.inference_mode()
def extract(model, dataset):
    """Features (N, D) and labels (N,)."""
    pairs = [(model(images), labels) for images, labels in DataLoader(dataset, batch_size=128)]
    features, labels = zip(*pairs, strict=True)
    return torch.cat(features), torch.cat(labels)


def main():
    """Score val against train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trunk", help="a folder that `convit-ssl export --to timm` wrote")
    parser.add_argument("images", help="a folder with train/<class>/ and val/<class>/")
    parser.add_argument("-k", type=int, default=10)
    args = parser.parse_args()

    model = timm.create_model(f"local-dir:{args.trunk}", pretrained=True, num_classes=0).eval()
    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**config, is_training=False)
    train = ImageFolder(f"{args.images}/train", transform)
    val = ImageFolder(f"{args.images}/val", transform)
    train_features, train_labels = extract(model, train)
    val_features, val_labels = extract(model, val)

    similarity = pairwise_cosine_similarity(val_features, train_features)
    nearest = similarity.topk(min(args.k, len(train)), dim=1)
    votes = torch.zeros(len(val), len(train.classes))
    votes.scatter_add_(1, train_labels[nearest.indices], (nearest.values / 0.07).exp())

    accuracy = MulticlassAccuracy(len(train.classes), average="micro")(votes, val_labels)
    print(f"weighted {args.k}-NN (cosine) on {len(val)} images: {100 * accuracy:.1f} %")


if __name__ == "__main__":
    main()
