"""Find the images of a folder that look like a given one.

The first command writes an index, the second searches it:

python docs/examples/image_retrieval.py index runs/demo photos photos.npz
python docs/examples/image_retrieval.py find runs/demo photos.npz photos/cat.png
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from convit_ssl.data import evaluation_transform
from convit_ssl.export import load_trunk

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


@torch.inference_mode()
def embed(model, paths, batch=64):
    """Unit-length features (N, D) of image files."""
    transform = evaluation_transform(model.config.img_size)
    features = []
    for start in range(0, len(paths), batch):
        images = [transform(Image.open(p).convert("RGB")) for p in paths[start : start + batch]]
        found = model(torch.stack(images))
        features.append(torch.nn.functional.normalize(found, dim=1).numpy())
    return np.concatenate(features)


def write_index(args):
    """Embed every image of a folder."""
    model = load_trunk(args.trunk, num_classes=0)
    paths = sorted(p for p in Path(args.folder).rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise SystemExit(f"{args.folder} holds no images")
    np.savez(
        args.index,
        features=embed(model, paths),
        paths=[str(p) for p in paths],
        fingerprint=model.provenance["fingerprint"],
    )
    print(f"{len(paths)} images in {args.index}")


def find(args):
    """Print the nearest images, most similar first."""
    model = load_trunk(args.trunk, num_classes=0)
    index = np.load(args.index)
    if str(index["fingerprint"]) != model.provenance["fingerprint"]:
        raise SystemExit(f"{args.index} was made with other weights; write it again")
    number = min(args.number, len(index["paths"]))
    neighbours = NearestNeighbors(n_neighbors=number, metric="cosine").fit(index["features"])
    distances, rows = neighbours.kneighbors(embed(model, [args.image]))
    for distance, row in zip(distances[0], rows[0], strict=True):
        print(f"{1 - distance:.3f}  {index['paths'][row]}")


def main():
    """Two commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    index = commands.add_parser("index", help="embed every image of a folder")
    for name in ("trunk", "folder", "index"):
        index.add_argument(name)
    index.set_defaults(run=write_index)
    ask = commands.add_parser("find", help="print the images nearest to a query")
    for name in ("trunk", "index", "image"):
        ask.add_argument(name)
    ask.add_argument("-n", "--number", type=int, default=5)
    ask.set_defaults(run=find)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
