"""Write the bundle as a zip that a server or a colleague unpacks: ``python scripts/make_bundle.py [--output FILE]``.

In it lies what git tracks and running needs, under one folder with the bundle's name: no tests, data or caches. The
tests' copy of the metadata schema goes along, so that `monai.bundle verify_metadata` works without a network. The same
commit gives the same bytes. Weights other than models/model.pt: ``--weights FILE``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bundle import __version__  # noqa: E402
from bundle.atomic import write_atomically  # noqa: E402

#: Of the one folder in the zip, and the bundle's name in a server's list of models.
NAME = "text_prior_diffusion_segmentation"
SCHEMA = "tests/meta_schema.json"
WEIGHTS = "models/model.pt"
#: A model zoo takes larger files by reference alone.
LARGEST = 25_000_000
_LEFT_OUT = ("tests/", ".ci/", ".git")
_STAMP = (1980, 1, 1, 0, 0, 0)


def packed_files(root: Path) -> list[str]:
    """Paths below the root, with '/', of all that goes into the zip.

    Raises:
        RuntimeError: the root is no clone of the repository.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        raise RuntimeError(
            f"{root}: is no git clone, which says what belongs to the bundle; make it in a clone."
        )
    names = [name for name in listed.stdout.split("\0") if name and (root / name).exists()]
    return sorted(name for name in names if name == SCHEMA or not name.startswith(_LEFT_OUT))


def write_zip(root: Path, output: Path, weights: Path | None = None) -> list[str]:
    """Write the zip whole or not at all; returns the paths in it.

    Args:
        weights: take this file as models/model.pt.

    Raises:
        RuntimeError: see `packed_files`, or a file is above `LARGEST`.
    """
    names = packed_files(root)
    with write_atomically(output) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in names:
            path = weights if weights is not None and name == WEIGHTS else root / name
            # links (metadata.json) become the files that they point to: unpackers lose links
            content = path.read_bytes()
            if len(content) > LARGEST:
                raise RuntimeError(f"{path}: {len(content):,} bytes are more than a model zoo takes.")
            entry = zipfile.ZipInfo(f"{NAME}/{name}", _STAMP)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100755 if path.stat().st_mode & 0o100 else 0o100644) << 16
            archive.writestr(entry, content)
    return names


def main() -> int:
    """Pack; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=Path("out") / f"{NAME}_v{__version__}.zip", metavar="FILE"
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="default: models/model.pt")
    arguments = parser.parse_args()
    try:
        names = write_zip(ROOT, arguments.output, arguments.weights)
    except (RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.output}: {len(names)} files, {arguments.output.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
