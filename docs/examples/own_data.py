"""A data set of your own: plates in folders by date, classes in the file names.

Run: convit-ssl train config=convit_dino plugins=own_data.py data=plates data_dir=/plates run=cpu
"""

from pathlib import Path

from convit_ssl import register_dataset


@register_dataset("plates")
def plates(data_dir: str | None, split: str) -> list[tuple[Path, str]]:
    """/plates/2024-05-01/treated_0001.png: the last date is val, all others are train."""
    dates = sorted(path for path in Path(data_dir or "plates").iterdir() if path.is_dir())
    chosen = dates[-1:] if split == "val" else dates[:-1]
    files = [path for date in chosen for path in sorted(date.glob("*.png"))]
    return [(path, path.stem.split("_")[0]) for path in files]
