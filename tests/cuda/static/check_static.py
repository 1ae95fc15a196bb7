#!/usr/bin/env python3
"""Holds what ptxas made of every kernel to tests/cuda/limits.json.

    check_static.py --limits FILE --occupancy PROGRAM --ptxas PROGRAM (ARCHITECTURE PTX)...
        [--print-limits]  instead of checking: the file as it would be with what was measured

For each kernel of each architecture: instruction counts of the cubin that must equal those of the
PTX, no local memory, required and forbidden opcodes, most registers, shared bytes, fewest blocks on
a multiprocessor. A kernel without an entry, and an entry without a kernel, are errors. Exit status 1
if anything is wrong.
"""
import argparse
import json
import pathlib
import subprocess
import sys

import cubin


def blocks_per_sm(program, lines):
    """One number for each (architecture, threads, registers, static bytes, dynamic bytes)."""
    text = "".join(" ".join(map(str, line)) + "\n" for line in lines)
    out = subprocess.run([program], input=text, capture_output=True, text=True, check=True).stdout
    return list(map(int, out.split()))


def measure(architecture, ptx, limits, tools):
    """Readable kernel name -> what is known of it, for one architecture."""
    ptx_text = pathlib.Path(ptx).read_text(encoding="utf-8")
    binary, log = cubin.assemble(tools.ptxas, architecture, ptx)
    sass = cubin.instruction_counts(binary)
    wanted = cubin.ptx_counts(ptx_text)
    used = cubin.resources(log)
    bounds = cubin.launch_bounds(ptx_text)
    if not set(sass) == set(wanted) == set(used):
        raise cubin.BadFile(f"sm_{architecture}: PTX, cubin and log name different kernels")
    names = cubin.readable(sorted(sass))
    kernels = {}
    for name in sorted(sass):
        entry = limits.get(names[name], {})
        kernels[names[name]] = {
            "sass": sass[name], "ptx": wanted[name], **used[name],
            "threads": bounds.get(name, entry.get("threads")),
            "dynamic_shared_bytes": entry.get("dynamic_shared_bytes", 0)}
    lines = [(architecture, kernel["threads"], kernel["registers"], kernel["shared_bytes"],
              kernel["dynamic_shared_bytes"]) for kernel in kernels.values()]
    for kernel, blocks in zip(kernels.values(), blocks_per_sm(tools.occupancy, lines)):
        kernel["blocks_per_sm"] = blocks
    return kernels


def faults_of(kernel, entry, limit):
    """What is wrong with one kernel on one architecture, as text."""
    sass = kernel["sass"]
    for opcode in cubin.COUNTERPARTS:
        if sass[opcode] != kernel["ptx"][opcode]:
            yield f"{sass[opcode]} {opcode} for {kernel['ptx'][opcode]} in the PTX"
    if kernel["local_bytes"]:
        yield f"{kernel['local_bytes']} bytes of stack and spills"
    for opcode in {"LDL", "STL", *entry.get("forbidden", [])}:
        if sass[opcode]:
            yield f"{sass[opcode]} {opcode}, which is forbidden"
    for opcode in entry.get("required", []):
        if not sass[opcode]:
            yield f"no {opcode}, which is required"
    if entry["threads"] != kernel["threads"]:
        yield f"launch bounds of {kernel['threads']} threads, limits say {entry['threads']}"
    if limit is None:
        yield "no limits for this architecture"
        return
    if kernel["registers"] > limit["max_registers"]:
        yield f"{kernel['registers']} registers, at most {limit['max_registers']}"
    if kernel["shared_bytes"] > limit["shared_bytes"]:
        yield f"{kernel['shared_bytes']} bytes of shared memory, at most {limit['shared_bytes']}"
    if kernel["blocks_per_sm"] < limit["min_blocks_per_sm"]:
        yield f"{kernel['blocks_per_sm']} blocks a multiprocessor, at least {limit['min_blocks_per_sm']}"


def check(measured, limits):
    """Every fault of every kernel, as lines."""
    faults = []
    for architecture, kernels in measured.items():
        for name, kernel in kernels.items():
            if name not in limits:
                faults.append(f"{name}: not in the limits")
                continue
            entry = limits[name]
            faults += [f"sm_{architecture} {name}: {fault}"
                       for fault in faults_of(kernel, entry, entry.get(f"sm_{architecture}"))]
    known = {name for kernels in measured.values() for name in kernels}
    return faults + [f"{name}: in the limits, but no such kernel" for name in limits
                     if name not in known]


def printed_limits(measured, limits):
    """limits.json with the measured values; required and forbidden opcodes stay."""
    out = {}
    for architecture, kernels in measured.items():
        for name, kernel in kernels.items():
            old = limits.get(name, {})
            entry = out.setdefault(name, {
                "threads": kernel["threads"],
                "dynamic_shared_bytes": kernel["dynamic_shared_bytes"],
                "required": old.get("required", [opcode for opcode in ("HMMA", "LDGSTS", "LDSM")
                                                 if kernel["sass"][opcode]]),
                "forbidden": old.get("forbidden", [])})
            # Registers are given out in eights.
            entry[f"sm_{architecture}"] = {"max_registers": (kernel["registers"] + 7) // 8 * 8,
                                           "shared_bytes": kernel["shared_bytes"],
                                           "min_blocks_per_sm": kernel["blocks_per_sm"]}
    rows = (f"  {json.dumps(name)}: {json.dumps(out[name])}" for name in sorted(out))
    return "{\n" + ",\n".join(rows) + "\n}"


def parse_arguments(description, more=()):
    """The options that scripts which measure kernels share, and `files` as pairs."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--limits", required=True, help="limits.json")
    parser.add_argument("--occupancy", required=True, help="the program made of occupancy.cpp")
    parser.add_argument("--ptxas", required=True)
    for option, settings in more:
        parser.add_argument(option, **settings)
    parser.add_argument("files", nargs="+", metavar="ARCHITECTURE PTX")
    arguments = parser.parse_args()
    if len(arguments.files) % 2 != 0:
        parser.error("files come in pairs: ARCHITECTURE PTX")
    arguments.files = list(zip(arguments.files[::2], arguments.files[1::2]))
    return arguments


def main():
    arguments = parse_arguments(__doc__.split("\n", maxsplit=1)[0],
                                [("--print-limits", {"action": "store_true"})])
    limits = json.loads(pathlib.Path(arguments.limits).read_text(encoding="utf-8"))
    try:
        measured = {architecture: measure(architecture, ptx, limits, arguments)
                    for architecture, ptx in arguments.files}
    except cubin.BadFile as error:
        print(error)
        return 1
    if arguments.print_limits:
        print(printed_limits(measured, limits))
        return 0
    for architecture, kernels in measured.items():
        for name, kernel in kernels.items():
            counts = " ".join(f"{opcode} {count}" for opcode, count in sorted(kernel["sass"].items())
                              if opcode != "other")
            print(f"sm_{architecture} {name}: {kernel['registers']} registers, "
                  f"{kernel['shared_bytes']}+{kernel['dynamic_shared_bytes']} bytes shared, "
                  f"{kernel['blocks_per_sm']} blocks of {kernel['threads']}; {counts}")
    faults = check(measured, limits)
    print("\n".join(faults) if faults else "every kernel keeps its limits")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
