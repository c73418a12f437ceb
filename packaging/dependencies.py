#!/usr/bin/env python3
"""What the server is made of, for one target: licenses and a bill of materials.

    packaging/dependencies.py TARGET FOLDER

writes FOLDER/THIRD-PARTY.txt (each crate with its license and the texts that it ships) and FOLDER/sbom.cdx.json
(CycloneDX 1.5). Both are made from Cargo.lock by `cargo metadata`, and are the same for the same commit.
"""

import json
import os
import pathlib
import subprocess
import sys
import uuid

TEXTS = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE")


def packages(target):
    """The crates that are linked into the server or run at its build, without those of tests."""
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    by_id = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = next(package for package in metadata["packages"] if package["name"] == "ringverb")
    reached, waiting = {}, [root["id"]]
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        needs = [
            dep["pkg"]
            for dep in nodes[name]["deps"]
            if any(kind["kind"] != "dev" for kind in dep["dep_kinds"])
        ]
        reached[name] = needs
        waiting += needs
    order = sorted(reached, key=lambda name: (by_id[name]["name"], by_id[name]["version"]))
    return root, [by_id[name] for name in order], {name: reached[name] for name in order}, by_id


def texts(package):
    """Names and contents of the license files in the crate's folder."""
    folder = pathlib.Path(package["manifest_path"]).parent
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name.upper().startswith(TEXTS):
            yield path.name, path.read_text(encoding="utf-8", errors="replace")


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def third_party(root, crates):
    """The list of crates, then each text once, under the names of the crates that ship it."""
    users = {}
    yield f"ringverb {root['version']} contains or was built with these crates:\n\n"
    for crate in crates:
        if crate["id"] == root["id"]:
            continue
        license = crate["license"] or f"see {crate['license_file']}"
        name = f"{crate['name']} {crate['version']}"
        yield f"{name}: {license} {crate['repository'] or crate['homepage'] or ''}\n"
        for _, text in texts(crate):
            users.setdefault(text.strip(), []).append(name)
    for text, names in users.items():
        yield f"\n{'=' * 78}\n{', '.join(dict.fromkeys(names))}\n\n{text}\n"


def bill(root, crates, needs, by_id):
    stamp = os.environ.get("RINGVERB_COMMIT", root["version"])

    def component(crate, kind):
        entry = {
            "type": kind,
            "bom-ref": purl(crate),
            "name": crate["name"],
            "version": crate["version"],
            "purl": purl(crate),
        }
        if crate["license"]:
            entry["licenses"] = [{"expression": crate["license"].replace("/", " OR ")}]
        return entry

    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'ringverb {stamp}')}",
        "version": 1,
        "metadata": {"component": component(root, "application")},
        "components": [component(crate, "library") for crate in crates if crate["id"] != root["id"]],
        "dependencies": [
            {"ref": purl(by_id[name]), "dependsOn": sorted({purl(by_id[need]) for need in these})}
            for name, these in needs.items()
        ],
    }


def main():
    if {"-h", "--help"} & set(sys.argv[1:]) or len(sys.argv) != 3:
        print(__doc__)
        sys.exit(len(sys.argv) != 2)
    target, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    root, crates, needs, by_id = packages(target)
    (folder / "THIRD-PARTY.txt").write_text("".join(third_party(root, crates)), encoding="utf-8")
    text = json.dumps(bill(root, crates, needs, by_id), indent=1, ensure_ascii=False)
    (folder / "sbom.cdx.json").write_text(text + "\n", encoding="utf-8")


main()
