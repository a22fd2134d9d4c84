# SPDX-License-Identifier: Apache-2.0
"""`larder serve` alone serves a 1 GiB demonstration disk and prints client commands that work as they stand."""

import os
import re
import stat
import subprocess

import client_case
from client_case import ClientCase, require_program
from images import GIB, MIB
from larder_server import SLOWNESS, LarderServer, die_with_parent

# Programs that end by themselves; a printed command of another (a shell, a virtual machine) is not run here.
PROGRAMS = ("nbdinfo", "nbdcopy", "qemu-img", "qemu-io", "fio")


class DemonstrationTest(ClientCase):
    def setUp(self):
        super().setUp()
        for name in ("server", "client"):
            os.mkdir(self.path(name))

    def demonstration(self):
        """`larder serve` with no argument, in an empty directory that is also its place for temporary files."""
        here = self.path("server")
        environment = {"TMPDIR": here, "XDG_RUNTIME_DIR": here, "HOME": here}
        return LarderServer(memory=None, cwd=here, environment=environment)

    @staticmethod
    def printed_commands(server):
        """The lines of output that begin with two spaces and a client's name."""
        server.wait_for_status(lambda _: True, "a status, which comes after the commands")
        lines = server.output_lines()
        return [line.strip() for line in lines if re.match(rf" +(?:{'|'.join(PROGRAMS)}) ", line)]

    @staticmethod
    def open_disks(server):
        """The paths of the 1 GiB files that the server holds open."""
        folder = f"/proc/{server.process.pid}/fd"
        for name in os.listdir(folder):
            at = os.path.join(folder, name)
            status = os.stat(at)
            if stat.S_ISREG(status.st_mode) and status.st_size == GIB:
                yield os.readlink(at)

    def test_it_serves_1_gib_that_reads_back_what_was_written(self):
        with self.demonstration() as server:
            uri = server.ready_uris()[0]
            self.assertEqual(self.run_client("nbdinfo", "--size", uri).strip(), str(GIB))
            handle = self.connect(uri)
            handle.pwrite(b"d" * MIB, GIB - MIB)
            handle.flush()
            self.assertTrue(handle.pread(MIB, GIB - MIB) == b"d" * MIB)
            handle.shutdown()

    def test_the_printed_commands_work(self):
        with self.demonstration() as server:
            commands = self.printed_commands(server)
            self.assertGreaterEqual(len(commands), 2, f"commands to try in {server.output_lines()}")
            for command in commands:
                require_program(command.split()[0])
                print(f"running: {command}")
                result = subprocess.run(
                    ["sh", "-c", command],
                    cwd=self.path("client"),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    timeout=120 * SLOWNESS,
                    preexec_fn=die_with_parent,
                )
                self.assertEqual(result.returncode, 0, f"{command}\n{result.stdout[-2000:]}")

    def test_the_disk_and_the_socket_are_gone_after_it(self):
        with self.demonstration() as server:
            disks = list(self.open_disks(server))
            self.assertTrue(disks, "the server holds no file of 1 GiB open")
        self.assertEqual([disk for disk in disks if os.path.exists(disk)], [])
        self.assertEqual(os.listdir(self.path("server")), [])


if __name__ == "__main__":
    client_case.main(seconds_max=240)
