#!/usr/bin/env python3
"""Writes the generated tables of docs/gpu.md: roofline, machine code of every kernel, ladders.

    tables.py --limits FILE --occupancy PROGRAM --ptxas PROGRAM --page docs/gpu.md
        --ladder PTX --ladder-log FILE  80 PTX 90 PTX

The ladder's log is what test_ladder prints: the bytes, FLOPs and instructions of each step. A table
stands between lines `<!-- generated: name -->` and `<!-- end -->`.
"""
import json
import pathlib
import re
import sys

import check_static
import cubin

# Peaks of SXM boards: bytes/s of memory, FLOP/s of f32 outside tensor cores, dense bf16 inside.
# Source: NVIDIA's data sheets of A100 (80 GB) and H100.
DEVICES = {"A100": (2.039e12, 19.5e12, 312e12), "H100": (3.35e12, 67e12, 989e12)}

# The shape of bge-reranker-v2-m3 in bf16 on 64 pairs of 512 tokens.
ROWS, LENGTH, WIDTH, INNER, HEAD, TILE = 64 * 512, 512, 1024, 4096, 64, 64
T = 2

# Kernel, elements, bytes that must move (each tensor once), f32 FLOPs, tensor-core FLOPs.
# The bytes an element are those that test_ptx_kernels holds the kernels to.
ROOFLINE = [
    ("embed", ROWS * WIDTH, 3 * T + 4 + T, 12, 0),
    ("add_norm", ROWS * WIDTH, 4 + 4 + 4 + T, 20, 0),
    ("turn_heads", ROWS * 3 * WIDTH, 4 + T, 4, 0),
    ("attention_mma", ROWS * WIDTH, 4 * T, 10 * LENGTH / HEAD, 4 * LENGTH),
    ("activation (GELU)", ROWS * INNER, 2 * T, 20, 0),
    ("gated", ROWS * INNER, 3 * T, 20, 0),
    ("mean_rows (by pairs)", ROWS * WIDTH, 6, 1, 0),
    ("finish_head (vectors)", 64 * WIDTH, 8, 10, 0),
]


def table(header, rows):
    """Markdown; the first column is left-aligned, the others are numbers."""
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def roofline():
    """Bytes, FLOPs and the least time of every kernel but cuBLAS's."""
    rows = []
    for name, elements, element_bytes, flops, tensor in ROOFLINE:
        moved = elements * element_bytes
        row = [name, f"{moved / 1e6:,.1f}", f"{elements * (flops + tensor) / 1e9:,.2f}",
               f"{(flops + tensor) / element_bytes:.1f}"]
        for memory, plain, cores in DEVICES.values():
            times = {"memory": moved / memory, "f32": elements * flops / plain,
                     "tensor": elements * tensor / cores}
            bound = max(times, key=times.get)
            row += [f"{times[bound] * 1e6:,.1f}", bound]
        rows.append(row)
    return table(["kernel", "MB", "GFLOP", "FLOP/byte", "A100 µs", "bound", "H100 µs", "bound"],
                 rows)


COUNTED = ("HMMA", "LDGSTS", "LDSM", "BAR", "SHFL", "LDG", "STG", "LDS", "STS", "FFMA", "MUFU")


def share(kernel):
    """Threads on a multiprocessor, of 2,048."""
    return f"{kernel['blocks_per_sm'] * kernel['threads'] * 100 // 2048} %"


def machine_code(measured):
    """Registers, shared bytes, occupancy and instruction counts, sm_80 / sm_90."""
    rows = []
    for name, old in measured["80"].items():
        new = measured["90"][name]
        rows.append([f"`{name}`", old["threads"], f"{old['registers']} / {new['registers']}",
                     old["shared_bytes"] + old["dynamic_shared_bytes"],
                     f"{share(old)} / {share(new)}", *(old["sass"][opcode] for opcode in COUNTED)])
    return table(["kernel", "threads", "registers", "shared bytes", "occupancy", *COUNTED],
                 sorted(rows))


# Dynamic shared bytes of the ladder's kernels at a width of 1,024 and heads of 64.
LADDER_SHARED = {"norm_3_once<bf16>": 4096, "add_norm_kernel<bf16, 4>": 4096,
                 "attention_mma_kernel<bf16, 64, 64, 1>": 24576}


def ladder(arguments):
    """What each step asks of memory and what ptxas made of it, on sm_80."""
    limits = {name: {"dynamic_shared_bytes": size} for name, size in LADDER_SHARED.items()}
    kernels = check_static.measure("80", arguments.ladder, limits, arguments)
    log = pathlib.Path(arguments.ladder_log).read_text(encoding="utf-8")
    rows = []
    for line in log.splitlines():
        if not line.startswith("ladder\t"):
            continue
        _, name, asked, flops, instructions = line.split("\t")
        key = name.rsplit(" ", maxsplit=1)[-1] + "<"
        kernel = next(value for full, value in kernels.items() if full.startswith(key))
        rows.append([f"`{name}`", f"{int(asked):,}", f"{int(flops):,}", f"{int(instructions):,}",
                     kernel["registers"], kernel["shared_bytes"] + kernel["dynamic_shared_bytes"],
                     share(kernel), *(kernel["sass"][opcode] for opcode in COUNTED)])
    return table(["step", "bytes asked", "FLOPs", "PTX instructions run", "registers",
                  "shared bytes", "occupancy", *COUNTED], rows)


def main():
    arguments = check_static.parse_arguments(
        __doc__.split("\n", maxsplit=1)[0],
        [(option, {"required": True}) for option in ("--page", "--ladder", "--ladder-log")])
    limits = json.loads(pathlib.Path(arguments.limits).read_text(encoding="utf-8"))
    try:
        measured = {architecture: check_static.measure(architecture, ptx, limits, arguments)
                    for architecture, ptx in arguments.files}
        tables = {"roofline": roofline(), "machine code": machine_code(measured),
                  "ladder": ladder(arguments)}
    except cubin.BadFile as error:
        print(error)
        return 1
    page = pathlib.Path(arguments.page)
    text = page.read_text(encoding="utf-8")
    for name, content in tables.items():
        text, count = re.subn(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)",
                              lambda match, content=content:
                              match.group(1) + content + "\n" + match.group(2), text, flags=re.DOTALL)
        if count != 1:
            print(f"{page}: {count} places for the table of {name}")
            return 1
    page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
