# SPDX-License-Identifier: Apache-2.0
"""Bad input gets one line that says what is wrong and what to do, exit code 2, and nothing left behind."""

import os
import re
import shutil
import socket
import subprocess
import unittest

import client_case
from client_case import ClientCase
from images import KIB, MIB, make_image, make_sparse_image, read_file_range
from larder_server import SLOWNESS, die_with_parent, parse_size, serve_command

NOBODY = 65534


class BadOptionsTest(ClientCase):
    def setUp(self):
        super().setUp()
        self.disk = make_image(self.path("disk.img"), MIB)
        self.socket_path = self.path("nbd.sock")

    def names_left(self):
        return sorted(os.path.join(folder, name) for folder, _, names in os.walk(self.directory) for name in names)

    def refusal(self, *images, user=None, more=(), **options):
        """Starts a server that must refuse; gives its one line of error."""
        options.setdefault("socket", self.socket_path)
        before = self.names_left()
        command = [*serve_command(images, **options), *more]
        try:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                timeout=5 * SLOWNESS,
                cwd=self.directory,
                env={**os.environ, "TMPDIR": self.directory},
                user=user,
                preexec_fn=die_with_parent,
            )
        except subprocess.TimeoutExpired:
            self.fail(f"runs on, but must refuse: {' '.join(command)}")
        self.assertEqual(result.returncode, 2, f"exit code; stderr: {result.stderr}")
        self.assertRegex(result.stderr, r"\Alarder: [^\n]+\n\Z", "not one line that begins with `larder: `")
        self.assertNotIn("ready:", result.stdout)
        self.assertEqual(self.names_left(), before, "left behind, or taken away")
        return result.stderr

    # Images

    def test_missing_image(self):
        self.assertIn("nowhere.img", self.refusal(self.path("nowhere.img")))

    def test_missing_image_after_a_good_one(self):
        self.assertIn("nowhere.img", self.refusal(self.disk, self.path("nowhere.img")))

    def test_unreadable_image(self):
        os.chmod(self.disk, 0)
        os.chmod(self.directory, 0o777)
        user = NOBODY if os.getuid() == 0 else None
        try:
            message = self.refusal(self.disk, user=user)
        except PermissionError as error:
            raise unittest.SkipTest(f"run by root, and another user may not start the program: {error}") from None
        self.assertIn("disk.img", message)

    def test_empty_image(self):
        self.assertIn("empty.img", self.refusal(make_sparse_image(self.path("empty.img"), 0)))

    def test_odd_sized_images(self):
        for size in (1, 511, MIB + 1):
            message = self.refusal(make_sparse_image(self.path("odd.img"), size))
            self.assertIn("odd.img", message)
            self.assertIn("512", message)

    def test_directory_as_image(self):
        os.mkdir(self.path("folder"))
        message = self.refusal(self.path("folder"))
        self.assertIn("folder", message)
        self.assertIn("directory", message)

    # Exports

    def test_two_exports_of_one_name(self):
        self.assertIn("twin", self.refusal(exports=[f"twin={self.disk}", f"twin={self.disk},ro"]))

    def test_two_images_of_one_file_name(self):
        os.mkdir(self.path("folder"))
        other = shutil.copy(self.disk, self.path("folder"))
        self.assertIn("disk.img", self.refusal(self.disk, other))

    def test_export_without_a_path(self):
        self.refusal(exports=["name"])
        self.refusal(exports=["name="])

    # Memory

    def test_memory_that_is_no_size(self):
        for memory in ("lots", "12Q", "", "-5M", "1.2.3M", "M"):
            self.assertIn("memory", self.refusal(self.disk, memory=memory), memory)

    def test_memory_that_overflows(self):
        self.assertIn("memory", self.refusal(self.disk, memory="99999999999999999999G"))

    def least_memory(self, memory):
        """The least size that works, as the refusal of `memory` names it: the first size after the word `least`."""
        message = self.refusal(self.disk, memory=memory)
        sizes = re.findall(r"\b\d+(?:\.\d+)? ?[KMG](?:iB|B)?\b|\b\d{5,}\b", message.partition("least")[2])
        self.assertTrue(sizes, f"no size after the word `least` in: {message}")
        return parse_size(sizes[0])

    def test_memory_too_small_names_the_least_and_exactly_that_works(self):
        least = self.least_memory("4K")
        self.assertEqual(self.least_memory("0"), least)
        self.assertEqual(self.least_memory(f"{least // KIB - 4}K"), least, "the least must be the least")
        size = f"{least // KIB}K" if least % KIB == 0 else str(least)
        with self.server(self.disk, memory=size) as server:
            handle = self.connect(server.uri())
            self.assertTrue(handle.pread(MIB, 0) == read_file_range(self.disk, 0, MIB))
            handle.pwrite(b"w" * (256 * KIB), 1234)
            handle.flush()
            self.assertTrue(handle.pread(256 * KIB, 1234) == b"w" * (256 * KIB))
            handle.shutdown()

    # Listeners

    def test_port_in_use(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.assertIn(str(port), self.refusal(self.disk, listen=[f"127.0.0.1:{port}"]))

    def test_port_in_use_takes_the_sockets_that_were_made_before_away(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.refusal(self.disk, listen=["127.0.0.1:0", f"127.0.0.1:{port}"], socket=self.socket_path)

    def test_addresses_that_are_none(self):
        for address in ("127.0.0.1", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:x", "[::1:5", ""):
            self.refusal(self.disk, listen=[address])

    def test_socket_of_a_live_server_is_refused_and_it_serves_on(self):
        with self.server(self.disk) as server:
            self.assertIn("nbd.sock", self.refusal(self.disk))
            handle = self.connect(server.uri())
            self.assertTrue(handle.pread(4096, 0) == read_file_range(self.disk, 0, 4096))
            handle.shutdown()

    def test_stale_socket_is_replaced(self):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(self.socket_path)
        with self.server(self.disk) as server:
            self.connect(server.uri()).shutdown()

    def test_regular_file_in_the_socket_s_place_is_kept(self):
        with open(self.socket_path, "w", encoding="ascii") as file:
            file.write("precious")
        self.assertIn("nbd.sock", self.refusal(self.disk))
        self.assertEqual(read_file_range(self.socket_path, 0, 100), b"precious")

    def test_socket_in_a_folder_that_is_not_there(self):
        self.assertIn("nowhere", self.refusal(self.disk, socket=self.path("nowhere/nbd.sock")))

    def test_socket_path_longer_than_the_system_takes(self):
        self.refusal(self.disk, socket=self.path("x" * 200))

    # The command line

    def test_unknown_option(self):
        self.assertIn("--frobnicate", self.refusal(self.disk, more=["--frobnicate"]))

    def test_option_without_its_value(self):
        self.assertIn("--memory", self.refusal(self.disk, more=["--memory"]))

    def test_workers_that_are_no_count(self):
        for workers in ("many", "-1"):
            self.assertIn("workers", self.refusal(self.disk, workers=workers))


if __name__ == "__main__":
    client_case.main()
