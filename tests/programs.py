#!/usr/bin/env python3
"""Prints `--test NAME` for each test program of the workspace but `process`, a word a line."""

import json
import subprocess

metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--no-deps", "--format-version=1"]))
for package in metadata["packages"]:
    for target in package["targets"]:
        if "test" in target["kind"] and target["name"] != "process":
            print("--test", target["name"], sep="\n")
