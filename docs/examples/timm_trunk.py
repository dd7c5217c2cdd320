"""DINO with a network of timm: train, evaluate, export, and load the result with timm alone.

Any convnet or vision transformer of timm is named the same way; on the command line it is
`convit-ssl train config=convit_dino trunk=timm:resnet18 data=folder data_dir=/images`.

Run: python docs/examples/timm_trunk.py --data digits --epochs 5
"""

import argparse

import torch

import convit_ssl


def main() -> None:
    """A folder of images in, a folder for timm out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trunk", default="timm:vit_tiny_patch16_224")
    parser.add_argument("--data", default="digits", help="a folder, or a built-in data set")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", default="runs/timm_trunk")
    parser.add_argument("--set", nargs="*", default=[], help="further options, such as seed=1")
    args = parser.parse_args()

    options = dict(word.split("=", 1) for word in args.set)
    run = convit_ssl.train(
        data=args.data,
        out=args.out,
        method="dino",
        trunk=args.trunk,
        **{"crops.global_size": 32, "optim.epochs": args.epochs, **options},
    )
    print(convit_ssl.knn(run, args.data))

    convit_ssl.export(run, to=["safetensors", "timm"])
    import timm

    network = timm.create_model(f"local-dir:{run.folder}/export/timm", pretrained=True).eval()
    with torch.inference_mode():
        features = network(torch.zeros(1, *network.pretrained_cfg["input_size"]))
    print(f"timm loads it: {tuple(features.shape)}")


if __name__ == "__main__":
    main()
