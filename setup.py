"""Packages of the wheel; everything else is declared in pyproject.toml."""

from setuptools import find_packages, setup

# The experiments live in configs/ beside the package, where people read and change them. The
# wheel carries them inside it, so that nothing of ours is installed as a top-level `configs`
# (VISSL has one of its own).
EXPERIMENTS = "convit_ssl.experiments"

setup(
    packages=[*find_packages(include=["convit_ssl", "convit_ssl.*"]), EXPERIMENTS],
    package_dir={EXPERIMENTS: "configs"},
    package_data={
        EXPERIMENTS: ["**/*.yaml", "**/*.json"],
        "convit_ssl": ["py.typed", "*.pyi"],
        "convit_ssl.analysis": ["page/*"],
    },
    include_package_data=False,
)
