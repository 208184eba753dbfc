"""The package's version, as in version.txt."""

from pathlib import Path

__version__ = (Path(__file__).parent / "version.txt").read_text(encoding="utf8").strip()
