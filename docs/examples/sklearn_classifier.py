"""A scikit-learn classifier on the features of a trunk.

python docs/examples/sklearn_classifier.py runs/demo --data digits
"""

import argparse

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import convit_ssl


def main():
    """Fit on train, score on val."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trunk", help="run folder, checkpoint or exported weights")
    parser.add_argument("--data", default="digits", help="a built-in data set, or a folder")
    parser.add_argument("--subset", help="labelled images to use, such as fraction=0.1,seed=0")
    args = parser.parse_args()

    train = convit_ssl.embed(args.trunk, args.data, split="train", subset=args.subset)
    val = convit_ssl.embed(args.trunk, args.data, split="val")

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(train.array, train.labels)
    accuracy = classifier.score(val.array, val.labels)
    print(f"{len(train)} labelled images, accuracy on {len(val)} others: {100 * accuracy:.1f} %")


if __name__ == "__main__":
    main()
