#!/usr/bin/env python3
"""How far scores drift from f32 in other types of products, and whether rankings notice.

    drift.py --bin build/release/terse [--dtypes bf16,int8] [--isa avx2,...] [--collection DIR ...] [--model DIR ...]

Two tables in Markdown on standard output, and one line of JSON a row in --jsonl FILE:

* real models over real collections: the first --top-k candidates of each query's BM25 run are reranked in f32 and in each
  type. Largest and mean difference of a score, Kendall's tau-b and the share of the best ten kept (means over queries),
  nDCG@10 by `terse eval` and its difference.
* the small models' golden scores: error against the reference in float64, beside the reference's own error in bf16.

Without --model and --collection: every model of TERSE_SHARED/real over the collections in its languages. A type that a
build cannot run is said on standard error and left out. Only the standard library is used.
"""
import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from retrieval_data import PREFIXES, prefixed, read_run, whole_model  # noqa: E402
from tiny_models import read_safetensors  # noqa: E402

ENGLISH = ("cranfield", "cisi", "scifact", "xquad/en")
MULTILINGUAL = ("cranfield", "cmrc2018", "xquad/en", "xquad/de", "xquad/ru", "xquad/ar", "xquad/th", "xquad/zh")
# Below this nDCG@10 may not fall in a type that is chosen by itself, in points of 100.
ALLOWED_POINTS = 0.3


class Unsupported(Exception):
    pass


def terse(binary, *args, stdin=None):
    r = subprocess.run([binary, *map(str, args)], input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
                       capture_output=True)
    err = r.stderr.decode("utf-8", "replace").strip()
    if r.returncode == 3 and "unsupported" in err:
        raise Unsupported(err.splitlines()[-1])
    if r.returncode not in (0, 1):
        sys.exit(f"{' '.join(map(str, args))}\n{err}")
    return r.stdout.decode()


def kendall_tau(a, b):
    """Tau-b of two lists of scores; NaN where one of them is constant."""
    pairs = [((a[i] > a[j]) - (a[i] < a[j]), (b[i] > b[j]) - (b[i] < b[j])) for i in range(len(a)) for j in range(i)]
    untied = math.sqrt(sum(x != 0 for x, _ in pairs) * sum(y != 0 for _, y in pairs))
    return sum(x * y for x, y in pairs) / untied if untied else math.nan


def top(scores, k):
    return set(sorted(scores, key=lambda document: -scores[document])[:k])


def agreement(base, other):
    """Differences of two runs with the same documents."""
    gaps = [abs(other[q][d] - score) for q, documents in base.items() for d, score in documents.items()]
    taus = [kendall_tau(list(documents.values()), [other[q][d] for d in documents]) for q, documents in base.items()]
    taus = [tau for tau in taus if not math.isnan(tau)]
    overlaps = [len(top(documents, 10) & top(other[q], 10)) / min(10, len(documents)) for q, documents in base.items()]
    return {"queries": len(base), "pairs": len(gaps), "max": max(gaps), "mean": sum(gaps) / len(gaps),
            "tau": sum(taus) / len(taus), "top10": sum(overlaps) / len(overlaps)}


def ndcg(binary, qrels, run):
    out = terse(binary, "eval", "--qrels", qrels, "--run", run, "--metrics", "ndcg@10", "--format", "jsonl")
    return json.loads(out.splitlines()[-1])["ndcg@10"]


def rerank(arguments, model, folder, dtype, isa, work):
    """(scores, nDCG@10) of a collection's BM25 run, reranked."""
    before_query, before_passage = PREFIXES.get(model.name, ("", ""))
    run = work / "bm25.trec"
    lines = (folder / "runs" / "bm25.trec").read_text().splitlines(keepends=True)
    queries = list(dict.fromkeys(line.split()[0] for line in lines))
    kept = set(queries[:arguments.max_queries or None])
    run.write_text("".join(line for line in lines if line.split()[0] in kept))
    length = ["--max-length", 128, "--truncation", "longest-first"] if "cross-encoder" in model.name else ["--max-length", 256]
    out = work / f"{dtype}.trec"
    terse(arguments.bin, "rerank", "--model", model, "--run", run, "--top-k", arguments.top_k, "--dtype", dtype, "--isa", isa,
          "--corpus", prefixed(folder / "corpus.jsonl", before_passage, work / "corpus.jsonl"),
          "--queries", prefixed(folder / "queries.jsonl", before_query, work / "queries.jsonl"), *length, "-o", out)
    return read_run(out.read_text()), ndcg(arguments.bin, folder / "qrels.tsv", out)


def collections_of(arguments, shared, model):
    if arguments.collection:
        return [pathlib.Path(folder) for folder in arguments.collection]
    names = MULTILINGUAL if "multilingual" in model.name else ENGLISH
    return [shared / "collections" / name for name in names]


def real_rows(arguments, shared, work):
    models = [pathlib.Path(m) for m in arguments.model] or sorted((shared / "real").iterdir())
    for model in [whole_model(model, work) for model in models if model.is_dir()]:
        for folder in collections_of(arguments, shared, model):
            name = str(folder.relative_to(shared / "collections")) if folder.is_relative_to(shared) else folder.name
            for isa in arguments.isa:
                base, base_ndcg = rerank(arguments, model, folder, "f32", isa, work)
                for dtype in arguments.dtypes:
                    try:
                        scores, value = rerank(arguments, model, folder, dtype, isa, work)
                    except Unsupported as error:
                        print(f"left out: {dtype} on {isa}: {error}", file=sys.stderr)
                        continue
                    yield {"model": model.name, "collection": name, "dtype": dtype, "isa": isa, **agreement(base, scores),
                           "ndcg@10 f32": base_ndcg, "ndcg@10": value, "points": 100 * (value - base_ndcg)}


def golden_scores(arguments, folder, cases, dtype, isa):
    """Pairs (value, float64 reference) of a small model."""
    options = ["--model", folder, "--dtype", dtype, "--isa", isa]
    if "query" in cases[0]:
        items = [{"query": c["query"], "passage": c["passage"], "options": c["settings"]} for c in cases]
    else:
        items = []
        for c in cases:
            given = c["settings"]
            own = {"max_length": given["max_length"]} if "max_length" in given else {}
            own.update({"query_" + key: given[key] for key in ("instruction", "instruction_format") if key in given})
            items.append({"text": c["text"], "kind": given.get("role", "passage"), "options": own})
    lines = "".join(json.dumps(item) + "\n" for item in items).encode()
    rows = [json.loads(line) for line in terse(arguments.bin, "score" if "query" in cases[0] else "embed", *options,
                                               stdin=lines).splitlines()]
    if "query" not in cases[0]:
        shape, want = read_safetensors(folder / "goldens" / "embeddings.safetensors")["dense_f64"]
        have = [value for row in rows for value in row["dense"]]
        assert len(have) == shape[0] * shape[1]
        return list(zip(have, want))
    pairs = []
    for case, row in zip(cases, rows):
        if "error" in row:
            sys.exit(f"{folder.name} {case['id']}: {row['error']}")
        have = [row["scores"][str(e)] for e in case["exits"]] if "scores" in row else [row["score"]]
        want = case["scores_f64"] if "scores_f64" in case else [case["score_f64"]]
        assert len(have) == len(want)
        pairs += zip(have, want)
    return pairs


def golden_rows(arguments, shared):
    for folder in sorted((shared / "models").iterdir()):
        path = folder / "goldens" / "cases.jsonl"
        if not path.exists():
            continue
        cases = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        reference = json.loads((folder / "goldens" / "stats.json").read_text())["bf16_vs_f64"]
        for isa in arguments.isa:
            for dtype in ["f32", *arguments.dtypes]:
                try:
                    gaps = [abs(have - want) for have, want in golden_scores(arguments, folder, cases, dtype, isa)]
                except Unsupported as error:
                    print(f"left out: {dtype} on {isa}: {error}", file=sys.stderr)
                    continue
                yield {"model": folder.name, "dtype": dtype, "isa": isa, "cases": len(cases), "mean": sum(gaps) / len(gaps),
                       "max": max(gaps), "reference bf16 mean": reference["mean"], "reference bf16 max": reference["max"]}


def cell(value):
    """Small differences with two digits, shares and measures with four decimals."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.01 else f"{value:.1e}"


def table(rows, columns):
    print("| " + " | ".join(columns) + " |")
    print("|" + "|".join("---" if name in ("model", "collection", "dtype", "isa") else "---:" for name in columns) + "|")
    for row in rows:
        print("| " + " | ".join(cell(row[name]) for name in columns) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="the command terse")
    parser.add_argument("--shared", default=os.environ.get("TERSE_SHARED") or ROOT.parent / "shared", type=pathlib.Path)
    parser.add_argument("--dtypes", default="bf16", type=lambda text: text.split(","), help="types beside f32 [bf16]")
    parser.add_argument("--isa", type=lambda text: text.split(","), help="instruction sets [the best of this machine]")
    parser.add_argument("--collection", action="append", default=[], metavar="DIR", help="BEIR folder with runs/bm25.trec")
    parser.add_argument("--model", action="append", default=[], metavar="DIR", help="model folder")
    parser.add_argument("--top-k", default=20, type=int, help="candidates of each query [20]")
    parser.add_argument("--max-queries", default=0, type=int, help="first queries of each run; 0: all [0]")
    parser.add_argument("--only", choices=("real", "goldens"), help="one of the two tables")
    parser.add_argument("--jsonl", metavar="FILE", help="every row with all its figures")
    arguments = parser.parse_args()
    if not arguments.isa:
        some_model = next(folder for folder in sorted((arguments.shared / "models").iterdir()) if folder.is_dir())
        arguments.isa = [json.loads(terse(arguments.bin, "inspect", "--json", some_model))["isa"]]
    log = open(arguments.jsonl, "w", encoding="utf-8") if arguments.jsonl else None

    def logged(rows):
        for row in rows:
            if log:
                log.write(json.dumps(row) + "\n")
                log.flush()
            yield row

    short = 0
    with tempfile.TemporaryDirectory(prefix="terse-drift-") as work:
        if arguments.only != "goldens":
            rows = []
            table((rows.append(row) or row for row in logged(real_rows(arguments, arguments.shared, pathlib.Path(work)))),
                  ["model", "collection", "dtype", "isa", "pairs", "max", "mean", "tau", "top10", "ndcg@10 f32", "ndcg@10",
                   "points"])
            short = sum(row["points"] < -ALLOWED_POINTS for row in rows)
            print(f"\n{len(rows)} rows, {short} more than {ALLOWED_POINTS} points of nDCG@10 below f32.\n")
        if arguments.only != "real" and not arguments.model:
            table(logged(golden_rows(arguments, arguments.shared)),
                  ["model", "dtype", "isa", "cases", "mean", "max", "reference bf16 mean", "reference bf16 max"])
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
