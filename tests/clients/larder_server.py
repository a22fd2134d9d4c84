# SPDX-License-Identifier: Apache-2.0
"""Runs `larder serve` for a test and holds it to what it promises whatever the test does.

Checked in every run: what is charged never exceeds the limit, in any status line (KF-20, KF-55); the process stays
within the limit and 12 MiB; when the clients have gone no connection and no request is left; SIGTERM ends it with
exit code 0, a last line `stopped: ...`, and no socket file.
"""

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
import unittest
import urllib.parse

from images import GIB, KIB, MIB
from memory_watch import MemoryWatch

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.environ.get("LARDER", os.path.join(REPOSITORY, "build", "release", "larder"))

# A sanitizer's shadow memory is not the server's, and its code is some times slower.
SANITIZED = os.environ.get("LARDER_SANITIZED", "0") not in ("", "0")
SLOWNESS = 5 if SANITIZED else 1
PROCESS_OVERHEAD_MAX = 12 * MIB
MEMORY_LIMIT_DEFAULT = 16 * MIB

_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def die_with_parent():
    """Runs in a new child: the kernel kills it when the test dies, however the test dies."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def parse_size(text):
    """Bytes of a size as the command line and the messages write it: 600K, 16M, 1G, 4096, 1.5 MiB."""
    number, unit = re.fullmatch(r"([0-9.]+)\s*([KMG]?)(?:iB|B)?", text.strip()).groups()
    return int(float(number) * {"": 1, "K": KIB, "M": MIB, "G": GIB}[unit])


def parse_status(line):
    """`status: a=1 b=0.5 c=x` as {"a": 1, "b": 0.5, "c": "x"}."""
    fields = dict(word.split("=", 1) for word in line.split()[1:] if "=" in word)
    for key, value in fields.items():
        for number in (int, float):
            try:
                fields[key] = number(value)
                break
            except ValueError:
                pass
    return fields


def serve_command(images=(), *, exports=(), memory=None, socket=None, listen=(), workers=None, read_only=False):
    """The command line of a server. Any argument may be wrong: bad_options_test gives wrong ones on purpose."""
    command = [PROGRAM, "serve", *map(str, images)]
    for option, values in (
        ("--memory", [memory]),
        ("--export", exports),
        ("--socket", [socket]),
        ("--listen", listen),
        ("--workers", [workers]),
    ):
        for value in values:
            if value is not None:
                command += [option, str(value)]
    return command + (["--read-only"] if read_only else [])


class _Output(threading.Thread):
    """Collects the lines of a pipe as they come, so that the server never waits for its reader."""

    def __init__(self, pipe, changed):
        super().__init__(daemon=True)
        self.lines = []  # appended under `changed`, as is `statuses`
        self.statuses = []
        self.ended = False
        self._pipe = pipe
        self._changed = changed
        self.start()

    def run(self):
        for line in self._pipe:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                if line.startswith("status: "):
                    self.statuses.append(parse_status(line))
                self._changed.notify_all()
        self._pipe.close()
        with self._changed:
            self.ended = True
            self._changed.notify_all()


class LarderServer:
    """A running server: `with LarderServer([image], socket=path, memory="1M") as server: ...`.

    Ready on entry. On a clean exit of the block every promise above is checked; after an exception the server is
    killed and its output shown.
    """

    def __init__(self, images=(), *, memory="16M", socket=None, cwd=None, environment=None, **options):
        self._command = serve_command(images, memory=memory, socket=socket, **options)
        self._memory_limit = parse_size(memory) if memory else MEMORY_LIMIT_DEFAULT
        self._socket = socket
        self._cwd = cwd
        self._environment = {**os.environ, **(environment or {})}
        self._changed = threading.Condition()
        self._ended = False

    def __enter__(self):
        self.process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=self._cwd,
            env=self._environment,
            preexec_fn=die_with_parent,
        )
        self._stdout = _Output(self.process.stdout, self._changed)
        self._stderr = _Output(self.process.stderr, self._changed)
        # SIGUSR1 is safe only once the server is ready: before that it would end the process.
        self._watch = MemoryWatch(self.process.pid, on_sample=self._ask_status)
        try:
            self._wait(lambda: self.ready_uris(), 20 * SLOWNESS, "a line `ready: URI`")
        except BaseException:
            self.kill()
            raise
        self._watch.start()
        return self

    def __exit__(self, kind, error, trace):
        try:
            if kind is None and not self._ended:
                self.stop()
        except BaseException:
            self._show_output()
            raise
        finally:
            if kind is not None and not issubclass(kind, unittest.SkipTest):
                self._show_output()
            self.kill()

    # Addresses

    def ready_uris(self):
        """The URIs that the server has announced so far, as printed."""
        return [
            word
            for line in self._stdout.lines
            if line.startswith("ready: ")
            for word in line.split()
            if word.startswith("nbd")
        ]

    def _endpoint(self, transport):
        for uri in map(urllib.parse.urlsplit, self.ready_uris()):
            kind = "unix" if "unix" in uri.scheme else "tcp6" if uri.netloc.startswith("[") else "tcp4"
            if kind == transport:
                return uri
        return None

    def uri(self, export="", transport="unix"):
        """The URI of an export (of the default one unless named) on a transport: unix, tcp4 or tcp6."""
        self._wait(lambda: self._endpoint(transport), 10 * SLOWNESS, f"a `ready:` line with a {transport} URI")
        uri = self._endpoint(transport)
        query = f"?{uri.query}" if uri.query else ""
        return f"{uri.scheme}://{uri.netloc}/{urllib.parse.quote(export, safe='')}{query}"

    def socket_path(self):
        """The unix socket's path."""
        return urllib.parse.parse_qs(urllib.parse.urlsplit(self.uri()).query)["socket"][0]

    def tcp_address(self, transport="tcp4"):
        """(host, port) of a TCP listener."""
        uri = urllib.parse.urlsplit(self.uri(transport=transport))
        return uri.hostname, uri.port or 10809

    # State

    def output_lines(self):
        """What the server has printed to standard output so far."""
        return list(self._stdout.lines)

    def statuses(self):
        """All status lines so far, oldest first."""
        return list(self._stdout.statuses)

    def charged_max(self):
        """The most that was charged at any time: the server's own peak where it tells one, and every sample."""
        return max(max(status["memory_used"], status.get("memory_peak", 0)) for status in self.statuses())

    def memory_peaks(self):
        """The peaks so far, for the test's log: what was charged, and what was resident."""
        self.status()
        self._watch.sample()
        return f"charged {self.charged_max() / MIB:.2f} MiB, resident {self._watch.rss_max / MIB:.2f} MiB"

    def status(self):
        """A status line printed now."""
        seen = len(self._stdout.statuses)
        self._ask_status()
        self._wait(lambda: len(self._stdout.statuses) > seen, 10 * SLOWNESS, "a status line after SIGUSR1")
        return self._stdout.statuses[-1]

    def task_report(self):
        """What the server prints about its tasks: the first line of it, and the lines that list them."""
        seen = len(self._stdout.lines)
        self.process.send_signal(signal.SIGUSR2)

        def report():
            lines = self._stdout.lines[seen:]
            heads = [i for i, line in enumerate(lines) if line.startswith("runtime ")]
            # The whole report ends with an empty line.
            return lines[heads[0] : lines.index("", heads[0])] if heads and "" in lines[heads[0] :] else None

        self._wait(lambda: report() is not None, 10 * SLOWNESS, "a report of tasks after SIGUSR2")
        return report()

    def wait_for_status(self, condition, what, seconds=10):
        """The first status for which `condition` holds; fails with the last one when none comes in time."""
        deadline = time.monotonic() + seconds * SLOWNESS
        status = self.status()
        while not condition(status):
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {seconds * SLOWNESS} s; last status: {status}")
            time.sleep(0.02)
            status = self.status()
        return status

    def wait_for_baseline(self):
        """No connection and no request left, as before the first client came."""
        return self.wait_for_status(
            lambda status: status["connections"] == 0 and status["in_flight"] == 0,
            "back to connections=0 and in_flight=0 after the last client left",
        )

    # End

    def stop(self):
        """Clients gone: checks the baseline, ends the server with SIGTERM, checks all that it promises."""
        self.wait_for_baseline()
        self.terminate()
        self.wait_stopped()

    def terminate(self, with_signal=signal.SIGTERM):
        """Asks the server to stop, whatever its clients are doing."""
        self._end_watch()
        self.process.send_signal(with_signal)

    def wait_stopped(self, seconds=20):
        """The server was asked to stop: waits for its end and checks it."""
        self._ended = True
        try:
            code = self.process.wait(seconds * SLOWNESS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running {seconds * SLOWNESS} s after it was asked to stop") from None
        self._join_output()
        self._check(code == 0, f"exit code {code}, wanted 0")
        last = next((line for line in reversed(self._stdout.lines) if line), "")
        self._check(last.startswith("stopped: "), f"last line is {last!r}, wanted `stopped: ...`")
        self._check(not (self._socket and os.path.lexists(self._socket)), f"{self._socket} was left behind")
        reports = [line for line in self._stderr.lines if "Sanitizer" in line or "runtime error:" in line]
        self._check(not reports, f"sanitizer report: {reports[:1]}")
        self._check_memory()

    def kill(self):
        """SIGKILL at once: a crash, as seen from the disk. Also frees what the test holds of the process."""
        self._ended = True
        self._end_watch()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._join_output()

    # Inside

    def _ask_status(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR1)

    def _wait(self, condition, seconds, what):
        with self._changed:
            came = self._changed.wait_for(lambda: condition() or self._stdout.ended, seconds)
            if condition():
                return
        why = f"not within {seconds} s" if not came else f"the server ended with code {self.process.wait()}"
        raise AssertionError(f"waited for {what}: {why}; its last error line: {self._stderr.lines[-1:]}")

    def _end_watch(self):
        if self._watch.is_alive():
            self._watch.sample()
            self._watch.stop()

    def _join_output(self):
        self._stdout.join(10)
        self._stderr.join(10)

    def _check_memory(self):
        for status in self._stdout.statuses:
            charged = max(status["memory_used"], status.get("memory_peak", 0))
            self._check(charged <= status["memory_limit"], f"charged more than the limit: {status}")
            self._check(status["memory_limit"] == self._memory_limit, f"not the limit that was asked for: {status}")
        if not SANITIZED:
            bound = self._memory_limit + PROCESS_OVERHEAD_MAX
            self._check(
                self._watch.rss_max <= bound,
                f"resident size reached {self._watch.rss_max / MIB:.2f} MiB (anonymous "
                f"{self._watch.anonymous_max / MIB:.2f} MiB), bound {bound / MIB:.2f} MiB",
            )

    @staticmethod
    def _check(condition, message):
        if not condition:
            raise AssertionError(f"server: {message}")

    def _show_output(self):
        for name, stream in (("stdout", self._stdout), ("stderr", self._stderr)):
            for line in stream.lines[-20:]:
                print(f"server {name}: {line}", file=sys.stderr)
