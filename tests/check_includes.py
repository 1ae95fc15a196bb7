#!/usr/bin/env python3
"""Holds the headers to the include rule of docs/architecture.md.

    check_includes.py [ROOT]   one line a breach; exit status 1 if there is any

ROOT is the top of the project. Only text is read: comments and string literals are blanked first.
"""
import pathlib
import re
import sys

# Lowest first: a header includes only headers to its left. A name with a slash is a folder, and
# inside a folder the rules below hold. Any other header of include/terse is public API, on top.
LAYERS = ["error", "checked", "utf8", "view", "dtype", "json", "tensor", "cpu", "device", "parallel",
          "file", "safetensors", "sha256", "packed_file", "zip", "torch_file", "weights", "batch", "options",
          "model_info", "tokenizer/", "ops/", "schedule", "layers/", "models/"]
TOKENIZER_MAY_USE = {"error", "checked", "utf8", "view", "json", "file"}
LAYERS_ANY_LAYER_MAY_USE = {"layers/linear", "layers/rotary"}
# A header models/x or models/x_part belongs to model x and is nothing to the other models; the
# headers that belong to none are shared, and include no model.
MODELS = ("bert", "gemma", "gemma2", "minicpm", "mistral")
# The headers that know all models; only each other and the public headers include them.
REGISTRY = {"models/architectures", "models/registry"}

# A pattern, the places where it may stand, and what to say elsewhere.
RESTRICTED = [
    (r"#include\s*<(Eigen|unsupported)/", r"include/terse/ops/eigen\.h", "Eigen"),
    (r"#include\s*<\w*intrin\.h>", r"include/terse/(ops/.*|cpu\.h)|tests/emulated/.*", "processor intrinsics"),
    (r"#include\s*<(cuda|cublas|cudnn|mma|cooperative_groups)", r"(kernels|tests/cuda)/.*", "a CUDA header"),
    (r"#include\s*<(iostream|cstdio|stdio\.h|regex|print)>", r"(?!include/).*", "a printing header"),
    (r"\bstd::regex\b", r"nowhere", "std::regex"),
    (r"\balloca\s*\(", r"nowhere", "alloca"),
    (r"\b(std::)?(exit|_Exit|quick_exit|abort|terminate)\s*\(", r"(?!include/).*", "an end of the program"),
    (r"\bf?printf\s*\(|\bputs\s*\(|\bstd::(cout|cerr|clog)\b", r"(?!include/).*", "printing"),
    (r"\bgetenv\s*\(", r"include/terse/cpu\.h|(?!include/).*", "the environment"),
]


def blanked(text):
    """The text without comments and string literals; include lines keep their names."""
    token = re.compile(r'//[^\n]*|/\*.*?\*/|(#include[^\n]*)|"(?:\\.|[^"\\\n])*"', re.DOTALL)
    return token.sub(lambda match: match.group(1) or " ", text)


def name_of(path):
    """include/terse/ops/eigen.h -> ops/eigen"""
    return path.removeprefix("include/terse/").removesuffix(".h")


def rank(name):
    """Place of a header's name in LAYERS."""
    entry = name.split("/")[0] + "/" if "/" in name else name
    return LAYERS.index(entry) if entry in LAYERS else len(LAYERS)


def model_of(name):
    """Which of MODELS a header belongs to, or None."""
    part = name.removeprefix("models/")
    return next((model for model in MODELS if part == model or part.startswith(model + "_")), None)


def may_include(header, included):
    """Whether the include rule lets one header include another, both given by name."""
    if header == "terse":
        return True
    if included == "terse":
        return False
    if included in REGISTRY:
        return header in REGISTRY or rank(header) == len(LAYERS)
    if rank(header) != rank(included):
        if header.startswith("tokenizer/"):
            return included in TOKENIZER_MAY_USE
        return rank(included) < rank(header)
    if header.startswith("layers/"):
        return included in LAYERS_ANY_LAYER_MAY_USE
    if header.startswith("models/") and header not in REGISTRY:
        return model_of(included) in (None, model_of(header))
    return True


def breaches(path, text):
    """Every breach in one file, as text. path is relative to the top of the project."""
    code = blanked(text)
    found = [f"{path}: {what} ({match.group(0).strip()})"
             for pattern, allowed, what in RESTRICTED if not re.fullmatch(allowed, path)
             for match in re.finditer(pattern, code)]
    if not path.startswith("include/"):
        return found
    if path.endswith(".h") and "#pragma once" not in code:
        found.append(f"{path}: no #pragma once")
    for included in re.findall(r'#include\s*"([^"]+)"', code):
        if not included.startswith("terse/"):
            found.append(f"{path}: includes {included}, not by its full name terse/...")
        elif not may_include(name_of(path), name_of("include/" + included)):
            found.append(f"{path}: may not include {included}")
    return found


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    files = sorted(path for folder in ("include", "tools", "tests", "bench", "kernels")
                   for path in (root / folder).rglob("*")
                   if path.suffix in {".h", ".inl", ".cpp", ".cu", ".cuh"})
    found = [breach for path in files
             for breach in breaches(path.relative_to(root).as_posix(),
                                    path.read_text(encoding="utf-8"))]
    print("\n".join(found) if found else f"{len(files)} files keep the include rule")
    return 1 if found or not files else 0


if __name__ == "__main__":
    sys.exit(main())
