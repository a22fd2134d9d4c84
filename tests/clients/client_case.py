# SPDX-License-Identifier: Apache-2.0
"""What the client tests share: a test case with a directory of its own, and an exit code that tells a skip.

A test file ends in `client_case.main()`: exit code 0 when what could run passed, 77 when nothing could run, with the
reasons printed, and 1 otherwise.
"""

import contextlib
import faulthandler
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from larder_server import PROGRAM, SANITIZED, SLOWNESS, LarderServer, die_with_parent

SKIPPED_EXIT_CODE = 77

try:
    import nbd
except ImportError:
    print("skipped: the Python module `nbd` (package python3-libnbd) is not installed")
    sys.exit(SKIPPED_EXIT_CODE)


def scaled(count):
    """A size or a count for this run: an eighth under a sanitizer, so that the test still ends in time."""
    return count // 8 if SANITIZED else count


def require_program(name):
    """The path of a client program; without it the test is skipped by name."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise unittest.SkipTest(f"{name} is not installed")
    return path


class ClientCase(unittest.TestCase):
    """A test with a directory of its own; servers and client programs end before the directory goes."""

    longMessage = True

    def setUp(self):
        self.directory = self.enterContext(tempfile.TemporaryDirectory(prefix="larder-"))

    def path(self, name):
        return os.path.join(self.directory, name)

    def server(self, *images, **options):
        """A server on a unix socket in the test's directory, as a context manager."""
        options.setdefault("socket", self.path("nbd.sock"))
        return LarderServer(images, **options)

    def start_server(self, *images, **options):
        """A server that runs until the test ends, and is then checked."""
        return self.enterContext(self.server(*images, **options))

    def run_client(self, program, *arguments, seconds=50, succeeds=True):
        """Runs a client program to its end and gives its standard output; its failure fails the test."""
        command = [require_program(program), *map(str, arguments)]
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=self.directory,
            timeout=seconds * SLOWNESS,
            preexec_fn=die_with_parent,
        )
        if succeeds and result.returncode != 0:
            output = result.stdout[-2000:] + result.stderr[-2000:]
            self.fail(f"{' '.join(command)}: exit code {result.returncode}\n{output}")
        if not succeeds and result.returncode == 0:
            self.fail(f"{' '.join(command)}: succeeded, but must not")
        return result.stdout

    @contextlib.contextmanager
    def mounted(self, uri):
        """The served disk as a file, by nbdfuse; skips the test where FUSE does not work."""
        folder = tempfile.mkdtemp(prefix="mount", dir=self.directory)
        file = os.path.join(folder, "nbd")
        command = [require_program("nbdfuse"), folder, uri]
        fuse = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        try:
            deadline = time.monotonic() + 10 * SLOWNESS
            while not os.path.exists(file):
                if fuse.poll() is not None:
                    raise unittest.SkipTest(f"nbdfuse does not work on this machine: {fuse.stderr.read().strip()}")
                self.assertLess(time.monotonic(), deadline, "nbdfuse did not mount the disk")
                time.sleep(0.05)
            yield file
            fuse.terminate()  # unmounts
            fuse.wait(10 * SLOWNESS)
            self.assertFalse(os.path.ismount(folder), "nbdfuse ended without unmounting")
        finally:
            fuse.kill()
            fuse.wait()
            fuse.stderr.close()
            if os.path.ismount(folder):
                subprocess.run(["umount", "-l", folder], check=False)

    @staticmethod
    def connect(uri):
        """A libnbd connection. It ends with its shutdown(), or when the last reference goes."""
        handle = nbd.NBD()
        handle.connect_uri(uri)
        return handle


class OutOfTime(Exception):
    """The whole program's time is over."""


class _CountingResult(unittest.TextTestResult):
    successes = 0

    def addError(self, test, err):
        super().addError(test, err)
        if issubclass(err[0], OutOfTime):
            self.stop()

    def addSuccess(self, test):
        super().addSuccess(test)
        self.successes += 1


def main(seconds_max=60):
    """Runs the tests of the calling program, for `seconds_max` together (longer under sanitizers), and exits."""
    seconds_max *= SLOWNESS

    def out_of_time(_signal, _frame):
        raise OutOfTime(f"the tests did not end within {seconds_max} s")

    if not os.access(PROGRAM, os.X_OK):
        sys.exit(f"no program at {PROGRAM}: build it, or name it in the environment variable LARDER")
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(seconds_max)
    # When a call into C does not give way to the alarm: tell where, and end. The kernel ends the children.
    faulthandler.dump_traceback_later(seconds_max + 15, exit=True)
    runner = unittest.TextTestRunner(verbosity=2, resultclass=_CountingResult)
    result = unittest.main(testRunner=runner, exit=False).result
    for test, reason in result.skipped:
        print(f"skipped: {test.id()}: {reason}")
    if not result.wasSuccessful():
        sys.exit(1)
    sys.exit(0 if result.successes else SKIPPED_EXIT_CODE)
