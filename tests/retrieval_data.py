"""What scripts that run the real models over the reference collections share: model folders made whole, corpora with the
prefixes a model was trained with, runs read back."""

import json
import lzma
import pathlib
import shutil

# What a model wants before its texts, queries and passages; none where it is not named. all-MiniLM-L6-v2 and the
# cross-encoder take texts as they are.
PREFIXES = {"multilingual-e5-small-q4-pruned": ("query: ", "passage: ")}


def whole_model(folder, work):
    """The folder itself, or where its weights are packed a copy with them unpacked, made once below work."""
    folder = pathlib.Path(folder)
    packed = folder / "model.safetensors.xz"
    if not packed.exists() or (folder / "model.safetensors").exists():
        return folder
    copy = pathlib.Path(work) / folder.name
    if not copy.is_dir():
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.xz"))
        with lzma.open(packed) as source, open(copy / "model.safetensors", "wb") as target:
            shutil.copyfileobj(source, target)
    return copy


def prefixed(path, prefix, target):
    """The file of texts itself, or a copy with a prefix before each text."""
    if not prefix:
        return path
    with open(path, encoding="utf-8") as source, open(target, "w", encoding="utf-8") as out:
        for line in filter(str.strip, source):
            row = json.loads(line)
            text = f"{row.get('title') or ''} {row['text']}".strip()
            out.write(json.dumps({"_id": row["_id"], "text": prefix + text}) + "\n")
    return target


def read_run(text):
    """{query: {document: score}} of a TREC run, in its order."""
    run = {}
    for line in text.splitlines():
        query, _, document, _, score, _ = line.split()
        run.setdefault(query, {})[document] = float(score)
    return run
