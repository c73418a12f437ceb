"""Runs the cases of the Autobahn test suite against the echo build, and fails unless each is OK or INFORMATIONAL.

    main.py SERVER [PREFIX...]    cases whose numbers begin so, such as 9. or 6.4
"""

import asyncio
import os
import subprocess
import sys
import tempfile

import cases
from peer import Peer

PASSED = ("OK", "INFORMATIONAL")
# The suite has so many without compression; fewer would be a suite that was not run.
CASES = 301
AT_ONCE = 24
# The longest wait of a case is 1,000 s, for hosts of its time.
CASE_SECONDS = 120
# The longest of a case, which is also the most that the server lets one set.
MESSAGE_BYTES_MAX = 16 << 20


def start(server, folder):
    settings = {
        "REVERB_APP_ID": "1001",
        "REVERB_APP_KEY": "app-key",
        "REVERB_APP_SECRET": "app-secret",
        "REVERB_APP_MAX_MESSAGE_SIZE": str(MESSAGE_BYTES_MAX),
        "REVERB_APP_PING_INTERVAL": "3600",
        "RINGVERB_SEND_QUEUE_BYTES_MAX": str(4 * MESSAGE_BYTES_MAX),
    }
    command = [server, "--host", "127.0.0.1", "--port", "0", "--workers", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=folder, env={"PATH": os.environ["PATH"], **settings}
    )
    for line in process.stdout:
        if line.startswith("  address  "):
            host, port = line.split()[1].rsplit(":", 1)
            return process, (host, int(port))
    sys.exit("the server did not start")


async def run(number, case_class, address, limit):
    async with limit:
        peer = Peer(address, "/app/app-key?protocol=7")
        case = case_class(peer)
        try:
            await asyncio.wait_for(peer.run(case), CASE_SECONDS)
        except (asyncio.TimeoutError, ConnectionError) as error:
            return number, "FAILED", "FAILED", f"{type(error).__name__}: {error}"
        return number, case.behavior, case.behaviorClose, f"{case.result} {case.resultClose}"


async def run_all(chosen, address):
    limit = asyncio.Semaphore(AT_ONCE)
    return await asyncio.gather(*(run(number, case, address, limit) for number, case in chosen))


def main():
    server, *prefixes = sys.argv[1:]
    every = cases.load()
    if len(every) != CASES:
        sys.exit(f"{len(every)} cases where {CASES} were expected")
    chosen = [one for one in every if not prefixes or one[0].startswith(tuple(prefixes))]
    with tempfile.TemporaryDirectory() as folder:
        process, address = start(os.path.abspath(server), folder)
        try:
            results = asyncio.run(run_all(chosen, address))
        finally:
            process.terminate()
            code = process.wait()
    counts = {}
    bad = [result for result in results if not (result[1] in PASSED and result[2] in PASSED)]
    for _, behavior, close, _ in results:
        counts[behavior, close] = counts.get((behavior, close), 0) + 1
    for number, behavior, close, why in bad:
        print(f"{number}: {behavior}, closing {close}: {why}")
    for (behavior, close), count in sorted(counts.items()):
        print(f"{count:4} {behavior}, closing {close}")
    if bad or code != 0 or not results:
        sys.exit(f"{len(bad)} of {len(results)} cases failed; the server ended with {code}")


if __name__ == "__main__":
    main()
