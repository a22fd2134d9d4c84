# SPDX-License-Identifier: Apache-2.0
"""An ext4 file system of some thousand small files passes through a 1 MiB server unharmed.

Any file system's metadata can be walked in little memory (design: the page daemon's root). Where FUSE works, mkfs and
e2fsck run on the served disk itself, by nbdfuse; everywhere, the disk is copied through the server and checked.
"""

import filecmp
import os
import random
import unittest

import client_case
from client_case import ClientCase, scaled
from images import MIB, first_difference, make_sparse_image

DISK_SIZE = 64 * MIB


def make_tree(root, files):
    """Small files and links in nested folders, from a fixed seed."""
    rng = random.Random(5)
    for n in range(files):
        folder = os.path.join(root, f"folder{n % 40:02}", f"inner{n % 7}")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"file{n:05}"), "wb") as file:
            file.write(rng.randbytes(rng.choice((0, 10, 700, 4096, 9000))))
    os.symlink("folder00", os.path.join(root, "link"))
    return root


def differences(comparison):
    """All names in which two trees differ, of a filecmp.dircmp."""
    found = comparison.left_only + comparison.right_only + comparison.diff_files + comparison.funny_files
    for inner in comparison.subdirs.values():
        found += differences(inner)
    return found


class Ext4Test(ClientCase):
    def setUp(self):
        super().setUp()
        self.tree = make_tree(self.path("tree"), scaled(3000))
        self.disk = make_sparse_image(self.path("disk.img"), DISK_SIZE)

    def make_file_system(self, target):
        self.run_client("mkfs.ext4", "-q", "-F", "-d", self.tree, target)

    def check_file_system(self, target):
        self.run_client("e2fsck", "-fn", target)

    def check_files(self, image):
        """Every file of the tree is in the image, with its contents; debugfs reads it without mounting."""
        out = self.path("out")
        os.mkdir(out)
        self.run_client("debugfs", "-R", f"rdump / {out}", image)
        comparison = filecmp.dircmp(self.tree, out, ignore=["lost+found"])
        self.assertEqual(differences(comparison), [])

    def test_made_and_checked_on_the_served_disk_by_nbdfuse(self):
        with self.server(self.disk, memory="1M") as server:
            with self.mounted(server.uri()) as file:
                self.make_file_system(file)
                self.check_file_system(file)
                self.check_files(file)
            # Mounted anew, so that nothing comes from the kernel's cache.
            with self.mounted(server.uri()) as file:
                self.check_file_system(file)
        self.check_file_system(self.disk)

    def test_copied_in_and_out_through_the_server(self):
        original = make_sparse_image(self.path("original.img"), DISK_SIZE)
        self.make_file_system(original)
        copy = self.path("copy.img")
        with self.server(self.disk, memory="1M") as server:
            self.run_client("nbdcopy", "--connections=4", "--flush", original, server.uri())
            self.run_client("nbdcopy", "--connections=4", server.uri(), copy)
            self.check_file_system(copy)
            self.check_files(copy)
        self.assertIsNone(first_difference(original, self.disk))
        self.check_file_system(self.disk)


if __name__ == "__main__":
    client_case.main()
