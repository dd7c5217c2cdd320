"""A scikit-learn classifier on the features of a trunk.

python docs/examples/sklearn_classifier.py runs/demo --data digits
"""

import argparse

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader

from convit_ssl.data import evaluation_transform, open_dataset
from convit_ssl.export import load_trunk


@torch.inference_mode()
def extract(model, dataset):
    """Features (N, D) and labels (N,) as numpy arrays, what scikit-learn takes."""
    features, labels = [], []
    for images, targets, _ in DataLoader(dataset, batch_size=128):
        features.append(model(images).numpy())
        labels.append(targets.numpy())
    return np.concatenate(features), np.concatenate(labels)


def main():
    """Fit on train, score on val."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trunk", help="run folder, checkpoint or exported weights")
    parser.add_argument("--data", default="digits", help="a built-in data set, or folder")
    parser.add_argument("--data-dir")
    parser.add_argument("--subset", help="labelled images to use, such as fraction=0.1,seed=0")
    args = parser.parse_args()

    model = load_trunk(args.trunk, num_classes=0)
    transform = evaluation_transform(model.config.img_size)
    train = open_dataset(args.data, args.data_dir, "train", transform, args.subset)
    val = open_dataset(args.data, args.data_dir, "val", transform)

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(*extract(model, train))
    accuracy = classifier.score(*extract(model, val))
    print(f"{len(train)} labelled images, accuracy on {len(val)} others: {100 * accuracy:.1f} %")


if __name__ == "__main__":
    main()
