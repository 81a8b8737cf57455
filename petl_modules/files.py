"""Files that are whole or not there, and what tells their versions apart."""

import hashlib
import json
from pathlib import Path


def write_json(path, value):
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_text(path, text):
    """Write a file, whole or not at all."""
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def digest(value):
    """A hash of a JSON-able value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def listing(paths):
    """`[[path, size, mtime], ...]`: what changes when files do."""
    rows = []
    for path in sorted(map(str, paths)):
        found = Path(path)
        stat = found.stat() if found.exists() else None
        rows.append([path, *((stat.st_size, stat.st_mtime) if stat else (0, 0))])
    return rows
