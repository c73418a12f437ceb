#!/usr/bin/env python3
"""Makes seccomp-io_uring.json: the default seccomp profile of Podman, narrowed, with the three calls of io_uring.

    seccomp-io_uring.py [DEFAULT]           writes the profile for the default profile DEFAULT to standard output
    seccomp-io_uring.py --check [DEFAULT]   compares seccomp-io_uring.json with DEFAULT, and fails if it allows more

DEFAULT is /usr/share/containers/seccomp.json, which Debian's package golang-github-containers-common installs.

The rules of DEFAULT depend on the capabilities of the container, by keys that Podman, CRI-O and Docker read. containerd
does not know them, and would apply the rules for privileged containers to all. So this script decides them for a
container without capabilities, and all engines read the profile in the same way. The profile names no architecture:
the kernel ends programs of another one (32 bits) at their first call.
"""

import json
import pathlib
import sys

DEFAULT = "/usr/share/containers/seccomp.json"
PROFILE = pathlib.Path(__file__).with_suffix(".json")

IO_URING = ["io_uring_enter", "io_uring_register", "io_uring_setup"]

# Podman allows these to containers without capabilities, for containers within containers; Docker refuses them.
REFUSED = (
    "fsconfig fsmount fsopen fspick get_mempolicy keyctl mbind mount mount_setattr move_mount open_tree pidfd_getfd "
    "pivot_root process_vm_readv process_vm_writev ptrace reboot set_mempolicy setns syslog umount umount2"
).split()
EPERM, ENOSYS = 1, 38

CLONE_FILES = 0x400
# CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID and CLONE_NEWNET.
NEW_NAMESPACES = 0x7E02_0000
AF_NETLINK, NETLINK_AUDIT = 16, 9


def when(name, *conditions):
    """Allows a call for such arguments only: (index, operator, value), or (index, MASKED_EQ, mask) for no bit of it."""
    arguments = [
        {"index": index, "value": value, "valueTwo": 0, "op": f"SCMP_CMP_{operator}"}
        for index, operator, value in conditions
    ]
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": arguments}


# Calls that the profile allows for some arguments.
RULES = [
    # Threads and processes, without namespaces of their own. The flags of clone3 are out of a filter's sight: it is
    # "not implemented", and the C library falls back to clone.
    when("clone", (0, "MASKED_EQ", NEW_NAMESPACES)),
    # A descriptor table for each worker.
    when("unshare", (0, "EQ", CLONE_FILES)),
    # AF_UNIX, AF_INET, AF_INET6 and their like; and AF_NETLINK, but for the audit.
    when("socket", (0, "LT", AF_NETLINK)),
    when("socket", (0, "EQ", AF_NETLINK), (2, "NE", NETLINK_AUDIT)),
]


def holds_without_capabilities(rule):
    """The conditions about capabilities. Those about architectures are for calls that others do not have."""
    return not (rule.get("includes") or {}).get("caps")


def make(default):
    """The profile for a default profile."""
    decided_here = {rule["names"][0] for rule in RULES} | {"clone3", *IO_URING}
    allowed, refused, rules = set(IO_URING), set(REFUSED), list(RULES)
    for rule in filter(holds_without_capabilities, default["syscalls"]):
        calls = set(rule["names"]) - decided_here
        if not calls:
            continue
        match rule["action"], bool(rule.get("args")):
            case "SCMP_ACT_ALLOW", False:
                allowed |= calls
            case "SCMP_ACT_ALLOW", True:
                rules.append({"names": sorted(calls), "action": rule["action"], "args": rule["args"]})
            case "SCMP_ACT_ERRNO", False:
                refused |= calls
            case _:
                sys.exit(f"seccomp-io_uring.py: a rule of an unknown kind: {rule}")
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "syscalls": [
            {"names": sorted(allowed - refused), "action": "SCMP_ACT_ALLOW", "args": []},
            *rules,
            {"names": sorted(refused), "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM, "args": []},
        ],
    }


def names(profile, holds):
    """Calls that a profile allows, for all arguments or some."""
    rules = [rule for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" and holds(rule)]
    return {name for rule in rules for name in rule["names"]}


def check(default):
    """Fails unless the profile allows the calls of io_uring, and nothing else that the default profile does not."""
    profile = json.loads(PROFILE.read_text())
    more = names(profile, lambda rule: True) - names(default, holds_without_capabilities)
    if missing := set(IO_URING) - names(profile, lambda rule: True):
        sys.exit(f"{PROFILE.name} does not allow {', '.join(sorted(missing))}")
    if more := more - set(IO_URING):
        sys.exit(f"{PROFILE.name} allows more than the default profile: {', '.join(sorted(more))}")
    print(f"{PROFILE.name}: the default profile, narrowed, and {', '.join(IO_URING)}")


def main(arguments):
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    checks = arguments[:1] == ["--check"]
    [path] = arguments[checks:] or [DEFAULT]
    default = json.loads(pathlib.Path(path).read_text())
    if checks:
        check(default)
    else:
        json.dump(make(default), sys.stdout, indent=2)
        print()


if __name__ == "__main__":
    main(sys.argv[1:])
