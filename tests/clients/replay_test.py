# SPDX-License-Identifier: Apache-2.0
"""`larder replay` as a user runs it: exit codes, one line of complaint, JSON and SVG that others can read."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

from larder_server import PROGRAM, REPOSITORY, SLOWNESS

SVG = "{http://www.w3.org/2000/svg}"
# 512-byte blocks 0 to 7 and 800 to 807 are pages 0 and 100; the second request asks for half of a page.
BLOCKS = "version,time,op,size,lbn\r\n1,10,2a,4096,0\r\n1,11,28,2048,4\r\n\r\n1,12,28,4096,800\r\n1,12,12,0,0\r\n"
PLAIN = "op,offset,size\nwrite,0,4096\nread,2048,2048\nread,409600,4096\n"


class ReplayTest(unittest.TestCase):
    longMessage = True

    def setUp(self):
        self.directory = self.enterContext(tempfile.TemporaryDirectory(prefix="larder-"))

    def path(self, name):
        return os.path.join(self.directory, name)

    def trace(self, text, name="t.csv"):
        with open(self.path(name), "w", encoding="ascii", newline="") as file:
            file.write(text)
        return self.path(name)

    def run_replay(self, *arguments, code=0, text=None):
        result = subprocess.run(
            [PROGRAM, "replay", *arguments],
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=60 * SLOWNESS,
            cwd=self.directory,
        )
        self.assertEqual(result.returncode, code, result.stderr)
        return result

    def refusal(self, *arguments):
        before = sorted(os.listdir(self.directory))
        result = self.run_replay(*arguments, code=2)
        self.assertRegex(result.stderr, r"\Alarder: [^\n]+\n\Z")
        self.assertEqual(result.stdout, "")
        self.assertEqual(sorted(os.listdir(self.directory)), before, "left behind, or taken away")
        return result.stderr

    @staticmethod
    def without_time(text):
        found = json.loads(text)
        for cache in found["caches"]:
            del cache["seconds"]
        del found["trace"]
        return found

    def test_both_forms_and_standard_input_say_the_same(self):
        size = ("--memory", "1M", "--policy", "lru", "--json")
        blocks = self.without_time(self.run_replay(self.trace(BLOCKS), *size).stdout)
        plain = self.without_time(self.run_replay(self.trace(PLAIN), *size).stdout)
        piped = self.without_time(self.run_replay("-", *size, text=PLAIN).stdout)
        self.assertEqual(blocks.pop("commands_skipped"), 1)
        self.assertEqual(plain.pop("commands_skipped"), 0)
        self.assertEqual(piped.pop("commands_skipped"), 0)
        self.assertEqual(blocks, plain)
        self.assertEqual(piped, plain)
        self.assertEqual(plain["footprint_pages"], 2)
        self.assertEqual(plain["caches"][0]["hits"], 1)
        self.assertEqual(plain["caches"][0]["misses"], 2)

    def test_a_made_up_trace_is_the_same_each_time_and_more_memory_hits_more(self):
        tool = os.path.join(REPOSITORY, "tools", "make_trace")
        made = subprocess.run([tool], capture_output=True, text=True, check=True)
        trace = self.trace(made.stdout)
        limit = ("--limit-requests", "20000", "--json")
        first = self.without_time(self.run_replay(trace, *limit).stdout)
        self.assertEqual(self.without_time(self.run_replay("-", *limit, text=made.stdout).stdout), first)
        ratios = {}
        for cache in first["caches"]:
            self.assertEqual(cache["hits"] + cache["misses"], first["look_ups"])
            self.assertLessEqual(cache["hit_ratio"], first["hit_ratio_most"])
            ratios.setdefault(cache["policy"], []).append(cache["hit_ratio"])
        self.assertEqual(sorted(ratios), ["clock", "lru", "s3-fifo", "sieve"])
        for policy, by_size in ratios.items():
            self.assertGreater(len(by_size), 8, policy)
            self.assertGreater(by_size[-1], by_size[0], policy)

    def test_the_picture_is_xml_with_a_line_for_each_policy(self):
        picture = self.path("hits.svg")
        self.run_replay(self.trace(PLAIN, "a&b<c.csv"), "--sizes", "64K,128K", "--svg", picture)
        root = xml.etree.ElementTree.parse(picture).getroot()
        self.assertEqual(root.tag, SVG + "svg")
        texts = [element.text for element in root.iter(SVG + "text")]
        for text in ("a&b<c.csv", "sieve", "s3-fifo", "clock", "lru", "64 KiB", "memory of the page cache"):
            self.assertIn(text, texts)
        self.assertEqual(sorted(os.listdir(self.directory)), ["a&b<c.csv", "hits.svg"])

    def test_a_full_disk_costs_the_picture_and_not_the_results(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("there is no /dev/full")
        result = self.run_replay(self.trace(PLAIN), "--memory", "1M", "--svg", "/dev/full", code=1)
        self.assertIn("hit ratio", result.stdout)
        self.assertRegex(result.stderr, r"\Alarder: --svg /dev/full: [^\n]+\n\Z")

    def test_damaged_traces_are_refused_by_line_and_column(self):
        for text, where in (
            ("op,offset,size\nread,0,4096\nread,-1,4096\n", 'line 3, column 2 (offset): "-1"'),
            ("op,offset,size\nread,0\n", "line 2: has 2 fields"),
            ("op,offset,size\nchew,0,1\n", 'line 2, column 1 (op): "chew"'),
            ("read,0,4096\n", "line 1: no column says what is done"),
            ("", "is empty"),
        ):
            self.assertIn(f"t.csv: {where}", self.refusal(self.trace(text)))

    def test_what_cannot_be_is_refused(self):
        trace = self.trace(PLAIN)
        self.assertIn("nowhere.csv", self.refusal(self.path("nowhere.csv")))
        self.assertIn("directory", self.refusal(self.directory))
        self.assertIn("least", self.refusal(trace, "--memory", "4K"))
        self.assertIn("--policy", self.refusal(trace, "--policy", "fifo"))
        self.assertIn("--disk-size", self.refusal(trace, "--disk-size", "4K"))
        self.assertIn("--svg", self.refusal(trace, "--svg", self.path("nowhere/x.svg")))
        self.assertIn("larder replay --help", self.refusal(trace, "--frobnicate"))

    def test_help_is_no_error(self):
        self.assertIn("zcat", self.run_replay("--help").stdout)


if __name__ == "__main__":
    if not os.access(PROGRAM, os.X_OK):
        sys.exit(f"no program at {PROGRAM}: build it, or name it in the environment variable LARDER")
    unittest.main(verbosity=2)
