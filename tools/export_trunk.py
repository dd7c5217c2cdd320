"""``python tools/export_trunk.py CKPT --to timm onnx``: the same as ``convit-ssl export``."""

import sys

import convit_ssl.adapters  # noqa: F401  shims, before anything imports torchvision
from convit_ssl.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
