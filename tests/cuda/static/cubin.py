"""What ptxas makes of a PTX file: instruction counts from the cubin, resources from its -v output.

No dump tool is needed: an instruction is 16 bytes and its opcode the low 9 bits of the first word,
on every architecture from Volta to Hopper. check_static.py accepts an architecture only after the
counts that must equal those of the PTX do.
"""
import collections
import pathlib
import re
import struct
import subprocess
import tempfile

OPCODES = {
    0x020: "FMUL", 0x021: "FADD", 0x023: "FFMA", 0x03b: "LDSM", 0x03c: "HMMA", 0x108: "MUFU",
    0x11d: "BAR", 0x181: "LDG", 0x183: "LDL", 0x184: "LDS", 0x186: "STG", 0x187: "STL",
    0x188: "STS", 0x189: "SHFL", 0x1ae: "LDGSTS",
}

# SASS opcode: pattern of the PTX instructions that become exactly one each.
COUNTERPARTS = {
    "HMMA": r"mma\.",
    "LDGSTS": r"cp\.async\.c[ag]\.",
    "LDSM": r"ldmatrix\.",
    "BAR": r"(bar|barrier)\.(cta\.)?(sync|red)\b",
    "SHFL": r"shfl\.",
}


class BadFile(Exception):
    """A file that is not what it should be."""


def assemble(ptxas, architecture, ptx):
    """The cubin that ptxas makes of a PTX file, and what it says. Spills and local memory are
    errors."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "cubin"
        done = subprocess.run([ptxas, f"-arch=sm_{architecture}", "-v", "-warn-spills",
                               "-warn-lmem-usage", "-Werror", ptx, "-o", out],
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BadFile("\n".join(line for line in (done.stdout + done.stderr).splitlines()
                                    if not line.startswith("ptxas info")))
        return out.read_bytes(), done.stdout + done.stderr


def sections(data):
    """(name, bytes) of each section of an ELF file that has bytes."""
    if len(data) < 64 or data[:4] != b"\x7fELF" or data[4] != 2:
        raise BadFile("not a 64-bit ELF file")
    table, = struct.unpack_from("<Q", data, 40)
    size, count, names = struct.unpack_from("<HHH", data, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, table + size * i) for i in range(count)]
    strings = headers[names][4]
    for name, kind, _, _, offset, length, *_ in headers:
        text = data[strings + name:data.index(b"\0", strings + name)].decode()
        if kind != 8:  # SHT_NOBITS
            yield text, data[offset:offset + length]


def instruction_counts(data):
    """Mangled kernel name -> Counter of SASS opcodes (others are counted as "other")."""
    found = {}
    for name, code in sections(data):
        if not name.startswith(".text."):
            continue
        if len(code) % 16 != 0:
            raise BadFile(f"{name}: {len(code)} bytes are no whole number of instructions")
        counts = collections.Counter()
        for word, in struct.iter_unpack("<Q8x", code):
            counts[OPCODES.get(word & 0x1ff, "other")] += 1
        found[name.removeprefix(".text.")] = counts
    if not found:
        raise BadFile("no code")
    return found


def ptx_counts(text):
    """Mangled kernel name -> Counter of the opcodes of COUNTERPARTS that its PTX asks for."""
    text = re.sub(r"//[^\n]*", "", text)
    found = {}
    for match in re.finditer(r"\.entry\s+([\w$]+)\s*\(", text):
        begin = text.index("{", match.end())
        depth, end = 1, begin + 1
        while depth:
            end = min(at for at in (text.find("{", end), text.find("}", end)) if at >= 0) + 1
            depth += 1 if text[end - 1] == "{" else -1
        counts = collections.Counter()
        for statement in re.split(r"[;:]", text[begin + 1:end]):
            statement = re.sub(r"^[\s{}]*(@!?[%\w$]+\s+)?", "", statement)
            for opcode, pattern in COUNTERPARTS.items():
                counts[opcode] += re.match(pattern, statement) is not None
        found[match.group(1)] = counts
    return found


def launch_bounds(text):
    """Mangled kernel name -> most threads a block, for the kernels that say so."""
    return {name: int(threads) for name, threads in
            re.findall(r"\.entry\s+([\w$]+)\s*\([^)]*\)\s*\.maxntid\s+(\d+)", text)}


def resources(log):
    """Mangled kernel name -> {"registers", "shared_bytes", "local_bytes"} from ptxas -v."""
    found, name = {}, None
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '([^']+)'", line):
            name = match.group(1)
            found[name] = {"local_bytes": None}
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, "
                                r"(\d+) bytes spill loads", line):
            found[name]["local_bytes"] = sum(map(int, match.groups()))
        elif match := re.search(r"Used (\d+) registers", line):
            found[name]["registers"] = int(match.group(1))
            shared = re.search(r"(\d+) bytes smem", line)
            found[name]["shared_bytes"] = int(shared.group(1)) if shared else 0
    for name, values in found.items():
        if "registers" not in values or values["local_bytes"] is None:
            raise BadFile(f"{name}: ptxas said nothing of its resources")
    if not found:
        raise BadFile("no kernel in the output of ptxas")
    return found


def readable(names):
    """Mangled name -> "kernel<arguments>" without namespaces and parameters."""
    result = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True,
                            check=True).stdout.split("\n")
    short = {}
    for name, full in zip(names, result):
        full = re.sub(r"^void ", "", re.sub(r"\b\w+::", "", full))
        short[name] = re.sub(r"\(.*$", "", full)
    return short
