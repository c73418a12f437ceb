#!/usr/bin/env python3
"""The documents as an archive has them, and the links of documents elsewhere.

    packaging/documents.py FOLDER

writes the pages of packaging/site/summary.txt into FOLDER/doc/ringverb, and tuning/ into FOLDER/ringverb/tuning. A link
to one of these files leads to where it is installed. A link to another file of the repository becomes text with its
path, because an installation does not have that file.
"""

import os
import pathlib
import re
import shutil
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s#]+)(#[^()\s]*)?\)")


def pages():
    """Paths of all pages, in the order of the site."""
    return re.findall(r"\(([^()]+\.md)\)", (ROOT / "packaging/site/summary.txt").read_text())


def with_links(text, page, changed):
    """The page with each of its links to the repository as `changed(link, label, path, anchor)` says."""

    def link(match):
        label, name, anchor = match[1], match[2], match[3] or ""
        if "://" in name or name.startswith("mailto:"):
            return match[0]
        path = (ROOT / page).parent.joinpath(name).resolve()
        if path.is_dir() and (path / "README.md").exists():
            path /= "README.md"
        return changed(match[0], label, path.relative_to(ROOT).as_posix(), anchor)

    parts = re.split(r"(^```.*?^```$|`[^`\n]+`)", text, flags=re.M | re.S)
    # A link whose label is code is in three parts: it is found again in the whole line.
    joined, code = "", {}
    for part in parts:
        if part.startswith("`"):
            mark = f"\0{len(code)}\0"
            code[mark] = part
            joined += mark
        else:
            joined += part
    joined = LINK.sub(link, joined)
    return re.sub(r"\0\d+\0", lambda mark: code[mark[0]], joined)


def installed(path):
    """Where a file of the repository is installed, below the folder of shared files."""
    if path.startswith("tuning/"):
        return f"ringverb/{path}"
    return f"doc/ringverb/{path}"


def main(folder):
    sources = [*pages(), "LICENSE"]
    sources += sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tuning").iterdir())
    names = dict.fromkeys(sources)

    def written(page):
        place = pathlib.PurePosixPath(installed(page)).parent

        def changed(link, label, path, anchor):
            if path in names:
                return f"[{label}]({os.path.relpath(installed(path), place)}{anchor})"
            return label if label.strip("`") == path else f"{label} (`{path}` in the source tree)"

        return with_links((ROOT / page).read_text(), page, changed)

    for name in names:
        to = folder / installed(name)
        to.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".md"):
            to.write_text(written(name))
        else:
            shutil.copy(ROOT / name, to)


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]) or len(sys.argv) != 2:
        print(__doc__)
        sys.exit(len(sys.argv) != 2)
    main(pathlib.Path(sys.argv[1]).absolute())
