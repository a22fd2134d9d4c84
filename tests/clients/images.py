# SPDX-License-Identifier: Apache-2.0
"""Disk images for the client tests: made from a seed, compared to the byte."""

import errno
import os
import random

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


def make_sparse_image(path, size):
    """A file of `size` bytes that reads as zeros and takes no disk space."""
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def make_image(path, size, seed=1):
    """A file like a used disk: random data, runs of one byte and holes, in pieces of up to 1 MiB."""
    rng = random.Random(seed)
    with open(path, "wb") as file:
        offset = 0
        while offset < size:
            length = min(rng.choice((4 * KIB, 100 * KIB, MIB)), size - offset)
            kind = rng.randrange(4)
            file.seek(offset)
            if kind >= 2:
                file.write(rng.randbytes(length))
            elif kind == 1:
                file.write(bytes([rng.randrange(1, 256)]) * length)
            offset += length
        file.truncate(size)
    return path


def pattern(offset, length):
    """Bytes that say where they belong: every 8 hold their own offset. `offset` and `length` are multiples of 8."""
    return b"".join(at.to_bytes(8, "big") for at in range(offset, offset + length, 8))


def read_file_range(path, offset, length):
    with open(path, "rb") as file:
        return os.pread(file.fileno(), length, offset)


def data_extents(path):
    """The parts of a sparse file that take disk space, as (offset, length); the rest reads as zeros."""
    extents = []
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        end = 0
        while end < size:
            try:
                begin = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break  # no data behind it
            end = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            extents.append((begin, end - begin))
    return extents


def first_difference(path, other_path):
    """The offset of the first byte in which two files differ, or None when they are equal, length included."""
    with open(path, "rb") as file, open(other_path, "rb") as other:
        offset = 0
        while True:
            block, other_block = file.read(MIB), other.read(MIB)
            if block != other_block:
                same = os.path.commonprefix([block, other_block])
                return offset + len(same)
            if not block:
                return None
            offset += len(block)
