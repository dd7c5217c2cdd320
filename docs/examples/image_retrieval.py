"""Find the images of a folder that look like a given one.

The first command writes an index, the second searches it:

python docs/examples/image_retrieval.py index runs/demo photos photos.npz
python docs/examples/image_retrieval.py find runs/demo photos.npz photos/cat.png
"""

import argparse

import numpy as np
from sklearn.neighbors import NearestNeighbors

import convit_ssl


def write_index(args):
    """Embed every image of a folder."""
    found = convit_ssl.embed(args.trunk, args.folder)
    for path, reason in found.unreadable.items():
        print(f"left out: {path}: {reason}")
    np.savez(args.index, features=found.array, paths=found.names, fingerprint=found.fingerprint)
    print(f"{len(found)} images in {args.index}")


def find(args):
    """Print the nearest images, most similar first."""
    index = np.load(args.index)
    query = convit_ssl.embed(args.trunk, [args.image])
    if str(index["fingerprint"]) != query.fingerprint:
        raise SystemExit(f"{args.index} was made with other weights; write it again")
    number = min(args.number, len(index["paths"]))
    neighbours = NearestNeighbors(n_neighbors=number, metric="cosine").fit(index["features"])
    distances, rows = neighbours.kneighbors(query.array)
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
