#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The inlined gets, puts and switches, and a page cache's hits, are as short as fast_path.txt says.

Compiles fast_path.cc and page_path.cc with each compiler that is known and installed, disassembles them, and counts
what lies on the straight path, no conditional branch taken, of each function: instructions, loads, stores, conditional
branches, calls and atomic instructions. With --update the counts are written to the file.

An indirect jump is a switch to another stack, and the path goes on behind it, where the switch back arrives. What is
rarely done is jumped over, wherever the compiler has put it: the functions in RARE, and the loads of floating-point
control words where both sides of a switch have the same.
"""

import argparse
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
GOLDEN = HERE / "fast_path.txt"
ROOT = HERE.parent.parent
SOURCES = {
    "fast_path.cc": ["raw_get", "raw_put", "object_get", "object_put", "frame_get", "frame_put",
                     "coroutine_resume", "coroutine_yield", "coroutine_life"],
    "page_path.cc": ["page_pin_read_unpin", "page_try_read"],
}
FUNCTIONS = sum(SOURCES.values(), [])
# To take a stack, to begin on it, and to give it back; what those do is not inlined and not counted.
CALLS_ALLOWED = {"coroutine_life": 3}
# A pin is one, and an unpin is one: both of the page's own line.
ATOMICS_ALLOWED = {"page_pin_read_unpin": 2}
COUNTS = ["instructions", "loads", "stores", "branches", "calls", "atomics"]
HEADING = """# SPDX-License-Identifier: Apache-2.0
# Counts on the straight path of what is inlined, ret included; written by fast_path_test.py --update.
"""
SKIPPED = 77
READS_ALL = re.compile(r"(cmp|test|bt)[bwlq]?$|mul|push|call|jmp|ldmxcsr|fldcw")
WRITES_LAST_ONLY = re.compile(r"(mov|set|vmov|cmov|stmxcsr|fnstcw)")
LOADS_CONTROL_WORD = ("ldmxcsr", "fldcw")
RARE = ("exchange_exceptions", "get_below", "put_below", "take_below", "give_span")
IS_JUMP = re.compile(r"j[a-z]+$")


class Failure(Exception):
    pass


def compilers():
    """Those whose counts may be compared, as {name with major version: command}."""
    found = {}
    for command, name in (("g++", "g++"), ("clang++-14", "clang++"), ("clang++", "clang++")):
        if shutil.which(command) is None:
            continue
        macros = run([command, "-E", "-dM", "-x", "c++", "/dev/null"])
        is_clang = "__clang__" in macros
        if is_clang != (name == "clang++"):
            continue  # a g++ that is clang
        major = re.search(r"#define " + ("__clang_major__" if is_clang else "__GNUC__") + r" (\d+)", macros)[1]
        found.setdefault(f"{name}-{major}", command)
    return found


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return done.stdout


def disassemble(compiler, source, longer):
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "compiled.o"
        extra = ["-DLARDER_GOLDEN_LONGER"] if longer else []
        flags = ["-std=c++20", "-O2", "-DNDEBUG", "-fcf-protection=none", "-D_GNU_SOURCE", *extra]
        flags += [f"-I{ROOT}/include", f"-I{ROOT}/src"]
        run([compiler, *flags, "-c", HERE / source, "-o", compiled])
        return run(["objdump", "--disassemble", "--reloc", "--no-show-raw-insn", "--section=.text", compiled])


def functions_of(text):
    """{name: [(address, mnemonic, operands, symbol that these refer to)]}"""
    functions = {}
    for line in text.splitlines():
        heading = re.match(r"[0-9a-f]+ <(\S+)>:$", line)
        if heading:
            current = functions.setdefault(heading[1], [])
            continue
        relocation = re.match(r"\s+[0-9a-f]+: R_\w+\s+(\S+)", line)
        if relocation:
            current[-1] = (*current[-1][:3], relocation[1])
            continue
        instruction = re.match(r"\s*([0-9a-f]+):\s+((?:lock |rep |repz |data16 )*)(\S+)\s*(.*?)\s*(?:#.*)?$", line)
        if instruction:
            current.append((int(instruction[1], 16), instruction[2] + instruction[3], instruction[4], ""))
    return functions


def split_operands(text):
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def is_memory(operand):
    return "(" in operand or operand.startswith("%fs:") or operand.startswith("%gs:")


class Layout:
    """Where the jumps of a function lead."""

    def __init__(self, instructions):
        self.instructions = instructions
        self.at_address = {instruction[0]: index for index, instruction in enumerate(instructions)}

    def target(self, index):
        """The index that a direct jump leads to; None if that is in another function."""
        _, _, text, symbol = self.instructions[index]
        address = re.match(r"([0-9a-f]+) ", text)
        return None if symbol or address is None else self.at_address.get(int(address[1], 16))

    def is_rare(self, index):
        """Whether what is done here, before anything else is decided, is rare."""
        for _ in range(100):
            _, mnemonic, text, symbol = self.instructions[index]
            if mnemonic in LOADS_CONTROL_WORD or any(name in symbol for name in RARE):
                return True
            if mnemonic.startswith(("ret", "call")) or IS_JUMP.match(mnemonic) and mnemonic != "jmp":
                return False
            index = self.target(index) if mnemonic == "jmp" else index + 1
            if index is None or index == len(self.instructions):
                return False
        return False


def count(instructions):
    """Follows the straight path to its ret."""
    totals = dict.fromkeys(COUNTS, 0)
    layout = Layout(instructions)
    index = 0
    for _ in range(1000):
        if index >= len(instructions):
            raise Failure("the straight path runs off the function's end")
        here = index
        _, mnemonic, text, _ = instructions[here]
        index += 1
        totals["instructions"] += 1
        operands = split_operands(text)
        if mnemonic.startswith("ret"):
            return totals
        if mnemonic.startswith("call"):
            totals["calls"] += 1
            continue
        if mnemonic == "jmp" and text.startswith("*"):
            totals["loads"] += is_memory(text)
            continue
        if mnemonic == "jmp":
            index = layout.target(here)
            if index is None:  # the straight path ends in another function
                totals["calls"] += 1
                return totals
            continue
        if IS_JUMP.match(mnemonic):
            totals["branches"] += 1
            if layout.is_rare(index) and layout.target(here) is not None:
                index = layout.target(here)
            continue
        memory = [is_memory(operand) for operand in operands]
        if mnemonic.startswith("lock") or (mnemonic.startswith("xchg") and any(memory)):
            totals["atomics"] += 1
        if mnemonic.startswith(("lea", "nop")) or not operands:
            continue
        if mnemonic.startswith("push"):
            totals["stores"] += 1
        elif mnemonic.startswith("pop"):
            totals["loads"] += 1
        if any(memory[:-1]) or (memory[-1] and not WRITES_LAST_ONLY.match(mnemonic)):
            totals["loads"] += 1
        if memory[-1] and not READS_ALL.match(mnemonic):
            totals["stores"] += 1
    raise Failure("the straight path has no end")


def measure(compiler, longer=False):
    measured = {}
    for source, names in SOURCES.items():
        functions = functions_of(disassemble(compiler, source, longer))
        measured |= {name: count(functions[name]) for name in names}
    return measured


def line_of(compiler, function, counts):
    return f"{compiler} {function}: " + ", ".join(f"{counts[kind]} {kind}" for kind in COUNTS)


def read_golden():
    golden = {}
    for line in GOLDEN.read_text().splitlines() if GOLDEN.exists() else []:
        if line.startswith("#") or not line:
            continue
        key, values = line.split(": ")
        compiler, function = key.split(" ")
        golden.setdefault(compiler, {})[function] = {
            kind: int(number) for number, kind in (value.split(" ") for value in values.split(", "))
        }
    return golden


def compare(compiler, golden, measured):
    """What differs, as lines."""
    return [
        f"{compiler} {function}: {measured[function][kind]} {kind}, but fast_path.txt says {golden[function][kind]}"
        for function in FUNCTIONS
        for kind in COUNTS
        if measured[function][kind] != golden[function][kind]
    ]


def check(installed):
    golden = read_golden()
    problems = []
    compared = 0
    for name, command in installed.items():
        if name not in golden:
            print(f"fast_path.txt has no counts for {name}")
            continue
        compared += 1
        problems += compare(name, golden[name], measure(command))
        longer = compare(name, golden[name], measure(command, longer=True))
        if sum(" instructions," in line for line in longer) != len(FUNCTIONS):
            problems.append(f"{name}: one instruction more in each function was not noticed: {longer}")
    for function, counts in ((f, c) for functions in golden.values() for f, c in functions.items()):
        if counts["calls"] > CALLS_ALLOWED.get(function, 0) or counts["atomics"] > ATOMICS_ALLOWED.get(function, 0):
            problems.append(f"fast_path.txt allows {function} a call or an atomic instruction")
    if problems:
        print("\n".join(problems))
        print("If that is wanted: tests/golden/fast_path_test.py --update writes the counts; say why in the commit.")
        return 1
    return 0 if compared else SKIPPED


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write the counts of the installed compilers")
    parser.add_argument("--skip", metavar="REASON", help="only say why nothing is compared")
    chosen = parser.parse_args()
    reason = chosen.skip
    if platform.machine() != "x86_64":
        reason = f"counts are of x86_64, this is {platform.machine()}"
    elif shutil.which("objdump") is None:
        reason = "objdump (binutils) is not installed"
    installed = {} if reason else compilers()
    if not reason and not installed:
        reason = "no compiler is installed"
    if reason:
        print(f"skipped: {reason}")
        return SKIPPED
    if not chosen.update:
        return check(installed)
    golden = read_golden() | {name: measure(command) for name, command in installed.items()}
    lines = [line_of(name, function, golden[name][function]) for name in sorted(golden) for function in FUNCTIONS]
    GOLDEN.write_text(HEADING + "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        print(failure)
        sys.exit(1)
