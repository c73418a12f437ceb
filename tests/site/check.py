"""Checks a built site: check.py SITE SCRATCH.

Each Markdown file of the repository is a page, each link of a page leads to a file and a heading that exist, and in a
browser the search finds a page.
"""

import functools
import html.parser
import http.server
import pathlib
import re
import subprocess
import sys
import threading
import unittest
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
SITE, SCRATCH = [pathlib.Path(path).resolve() for path in sys.argv[1:3]]
# mdBook's own: another address for the first page, all pages on one, the list of pages in a frame.
OWN = {"print.html", "404.html", "toc.html"}


class Page(html.parser.HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            self.anchors.add(attributes["id"])
        for name in ["href", "src"]:
            if tag in ("a", "img", "link", "script") and attributes.get(name):
                self.links.append(attributes[name])


@functools.cache
def page(path):
    return Page(path)


def pages():
    return [path for path in SITE.rglob("*.html") if path.name not in OWN]


def problem(link, path):
    url = urllib.parse.urlsplit(link)
    if url.scheme or url.netloc:
        return None
    to = path if not url.path else (path.parent / urllib.parse.unquote(url.path)).resolve()
    if to.is_dir():
        to /= "index.html"
    if not to.is_file():
        return "no such file"
    if url.fragment and to.suffix == ".html" and urllib.parse.unquote(url.fragment) not in page(to).anchors:
        return "no such heading"
    return None


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Site(unittest.TestCase):
    def test_each_document_is_a_page(self):
        listed = set(re.findall(r"\(([^()]+\.md)\)", (ROOT / "packaging/site/summary.txt").read_text()))
        tracked = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
        # Notes beside raw data are for those who read the data.
        documents = {name for name in tracked.stdout.split() if not name.startswith("bench/results/")}
        self.assertEqual(listed, documents)

    def test_each_link_leads_somewhere(self):
        found = []
        links = 0
        for path in pages():
            for link in page(path).links:
                links += 1
                if why := problem(link, path):
                    found.append(f"{path.relative_to(SITE)}: {link}: {why}")
        self.assertEqual(found, [])
        self.assertGreater(links, 500)

    def test_the_check_of_links_finds_faults(self):
        index = SITE / "index.html"
        self.assertEqual(problem("nowhere.html", index), "no such file")
        self.assertEqual(problem("docs/TLS.html#nowhere", index), "no such heading")
        self.assertIsNone(problem("docs/TLS.html", index))

    def test_a_browser_finds_a_page(self):
        handler = functools.partial(Quiet, directory=SITE)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}/index.html?search=stand-in"
            chromium = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
            chromium += [f"--user-data-dir={SCRATCH}/browser", "--window-size=1200,900"]
            picture = SCRATCH / "site.png"
            dom = subprocess.run([*chromium, "--dump-dom", url], capture_output=True, text=True, timeout=120)
            shot = subprocess.run([*chromium, f"--screenshot={picture}", url], capture_output=True, timeout=120)
            server.shutdown()
        results = re.search(r'<ul id="mdbook-searchresults">(.*?)</ul>', dom.stdout, re.S)
        self.assertIsNotNone(results, dom.stdout[:500] + dom.stderr[-500:])
        self.assertIn("OPERATIONS.html", results[1])
        self.assertEqual(shot.returncode, 0)
        self.assertGreater(picture.stat().st_size, 10_000)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
