# SPDX-License-Identifier: Apache-2.0
"""Watches a process's resident size while a test runs."""

import threading

from images import KIB

SAMPLE_PERIOD_SECONDS = 0.2


def read_kib_fields(path):
    """The `Name:  123 kB` lines of a file under /proc, in bytes; empty when the process has gone."""
    fields = {}
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                words = line.split()
                if len(words) == 3 and words[2] == "kB":
                    fields[words[0].rstrip(":")] = int(words[1]) * KIB
    except (FileNotFoundError, ProcessLookupError):
        pass
    return fields


class MemoryWatch(threading.Thread):
    """Samples a process until stopped.

    The kernel's own high-water mark (VmHWM) is read too, so that no peak between two samples is missed;
    smaps_rollup is exact where the counters in status may lag by some pages. `on_sample` runs with each sample.
    """

    def __init__(self, pid, on_sample=lambda: None):
        super().__init__(daemon=True)
        self.rss_max = 0
        self.anonymous_max = 0
        self._pid = pid
        self._on_sample = on_sample
        self._stop_asked = threading.Event()

    def sample(self):
        status = read_kib_fields(f"/proc/{self._pid}/status")
        rollup = read_kib_fields(f"/proc/{self._pid}/smaps_rollup")
        self.rss_max = max(self.rss_max, status.get("VmHWM", 0), status.get("VmRSS", 0), rollup.get("Rss", 0))
        self.anonymous_max = max(self.anonymous_max, status.get("RssAnon", 0), rollup.get("Anonymous", 0))

    def run(self):
        while not self._stop_asked.wait(SAMPLE_PERIOD_SECONDS):
            self.sample()
            self._on_sample()

    def stop(self):
        self._stop_asked.set()
        self.join()
