# SPDX-License-Identifier: Apache-2.0
"""A 4 GiB ext4 file system with 200,000 files is walked, every inode and every folder, through a server with 600 KiB.

That is the claim of the NetBSD rump kernel's page daemon (any file system's metadata can be walked in 600 kB), for all
that serving takes: pages, their metadata, stacks, objects and handles. Where FUSE works e2fsck and debugfs read the
served disk itself; elsewhere what the disk holds is copied through the server, and the copy is walked.
"""

import os
import shutil
import tempfile
import unittest

import client_case
from client_case import ClientCase, scaled
from images import GIB, MIB, data_extents, make_sparse_image
from larder_server import SANITIZED

FOLDERS = 400
FILES_PER_FOLDER = scaled(500)


def folder_names():
    return [f"group{n % 20:02}/folder{n:03}" for n in range(FOLDERS)]


def file_names():
    return [f"file{n:03}" for n in range(FILES_PER_FOLDER)]


class Ext4ManyFilesTest(ClientCase):
    def setUp(self):
        super().setUp()
        tree = tempfile.mkdtemp(prefix="larder-", dir=self.folder_for_files())
        self.addCleanup(shutil.rmtree, tree)
        for folder in folder_names():
            path = os.path.join(tree, folder)
            os.makedirs(path)
            for name in file_names():
                os.close(os.open(os.path.join(path, name), os.O_CREAT | os.O_WRONLY))
        self.disk = make_sparse_image(self.path("disk.img"), 4 * GIB)
        inodes = FOLDERS * (FILES_PER_FOLDER + 2)
        self.run_client("mkfs.ext4", "-q", "-F", "-N", inodes, "-d", tree, self.disk)

    def folder_for_files(self):
        """In memory if there is room for them: so many files take a disk half a minute."""
        memory = "/dev/shm"
        roomy = os.access(memory, os.W_OK) and os.statvfs(memory).f_favail > 2 * FOLDERS * FILES_PER_FOLDER
        return memory if roomy else self.directory

    def walk(self, target):
        """Checks all metadata, and lists every folder: nothing is missing, nothing is there that should not be."""
        self.run_client("e2fsck", "-fn", target)
        commands = self.path("commands")
        with open(commands, "w", encoding="ascii") as file:
            file.writelines(f"ls -p /{folder}\n" for folder in folder_names())
        listing = self.run_client("debugfs", "-f", commands, target)
        # Of `/inode/mode/user/group/name/size/`, a line each.
        names = [line.split("/")[5] for line in listing.splitlines() if line.startswith("/")]
        self.assertEqual(sorted(names), sorted((file_names() + [".", ".."]) * FOLDERS))

    def test_walked_in_600_kib(self):
        # A sanitizer's stacks are larger, by half a MiB in all; the pages have what they have without it.
        memory = "1140K" if SANITIZED else "600K"
        with self.server(self.disk, memory=memory, read_only=True) as server:
            try:
                with self.mounted(server.uri()) as file:
                    self.walk(file)
            except unittest.SkipTest as reason:
                print(f"by a copy: {reason}")
                copy = make_sparse_image(self.path("copy.img"), 4 * GIB)
                self.copy_data(server.uri(), copy)
                self.walk(copy)

    def copy_data(self, uri, copy):
        """Reads through the server all of the disk that is not a hole."""
        client = self.connect(uri)
        with open(copy, "r+b") as file:
            for begin, length in data_extents(self.disk):
                for offset in range(begin, begin + length, MIB):
                    os.pwrite(file.fileno(), client.pread(min(MIB, begin + length - offset), offset), offset)
        client.shutdown()


if __name__ == "__main__":
    client_case.main(seconds_max=120)
