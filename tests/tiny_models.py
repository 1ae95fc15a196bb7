"""Model folders of the published form, a few kilobytes each, with random weights: for tests of what
surrounds a model, where scores need not mean anything."""

import array
import json
import pathlib
import random
import struct

WORDS = ["what", "is", "panda", "bear", "the", "giant", "china", "hi", "cat", "sat", "on", "mat"]
LETTERS = [chr(c) for c in range(ord("a"), ord("z") + 1)] + list("0123456789.,?")


def write_safetensors(path, tensors):
    """tensors: {name: (shape, list of floats)}, stored as F32."""
    header, data = {}, b""
    for name, (shape, values) in tensors.items():
        raw = array.array("f", values).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)


def read_safetensors(path):
    """{name: (shape, list of floats)} of a file of F32 and F64 tensors."""
    raw, codes = pathlib.Path(path).read_bytes(), {"F32": "f", "F64": "d"}
    (length,) = struct.unpack("<Q", raw[:8])
    tensors = {}
    for name, entry in json.loads(raw[8:8 + length]).items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            tensors[name] = (entry["shape"], array.array(codes[entry["dtype"]], raw[begin:end]).tolist())
    return tensors


def added_tokens(tokens):
    return [{"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True} for content, id in tokens.items()]


def template(begin, end, separators, ids):
    """A TemplateProcessing post-processor: begin A end, and begin A <separators> B end."""
    def special(token, type_id):
        return {"SpecialToken": {"id": token, "type_id": type_id}}
    second = 1 if len(separators) == 1 else 0
    return {"type": "TemplateProcessing",
            "single": [special(begin, 0), {"Sequence": {"id": "A", "type_id": 0}}, special(end, 0)],
            "pair": [special(begin, 0), {"Sequence": {"id": "A", "type_id": 0}}]
                    + [special(s, 0) for s in separators]
                    + [{"Sequence": {"id": "B", "type_id": second}}, special(end, second)],
            "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in (begin, end)}}


def unigram_tokenizer():
    special = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    pieces = [[token, 0.0] for token in special] + [["\u2581", -4.0]]
    pieces += [["\u2581" + word, -5.0] for word in WORDS] + [[letter, -7.0] for letter in LETTERS]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added_tokens(special),
            "normalizer": None,
            "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True},
            "post_processor": template("<s>", "</s>", ["</s>", "</s>"], special),
            "decoder": {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True},
            "model": {"type": "Unigram", "unk_id": 3, "vocab": pieces}}, len(pieces)


def wordpiece_tokenizer():
    special = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    names = list(special) + WORDS + LETTERS + ["##" + letter for letter in LETTERS]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added_tokens(special),
            "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                           "strip_accents": None, "lowercase": True},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": template("[CLS]", "[SEP]", ["[SEP]"], special),
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100,
                      "vocab": {name: id for id, name in enumerate(names)}}}, len(names)


class Encoder:
    """Tensors of a BERT or XLM-R encoder, named as published."""

    def __init__(self, prefix, vocab, positions, types, hidden=16, layers=2, inner=32, seed=1):
        self.rng, self.tensors, self.hidden = random.Random(seed), {}, hidden
        self.matrix(prefix + "embeddings.word_embeddings.weight", vocab, hidden, 1.0)
        self.matrix(prefix + "embeddings.position_embeddings.weight", positions, hidden, 0.3)
        self.matrix(prefix + "embeddings.token_type_embeddings.weight", types, hidden, 0.3)
        self.norm(prefix + "embeddings.LayerNorm")
        for layer in range(layers):
            block = f"{prefix}encoder.layer.{layer}."
            for name in ("query", "key", "value"):
                self.linear(f"{block}attention.self.{name}", hidden, hidden)
            self.linear(block + "attention.output.dense", hidden, hidden)
            self.norm(block + "attention.output.LayerNorm")
            self.linear(block + "intermediate.dense", inner, hidden)
            self.linear(block + "output.dense", hidden, inner)
            self.norm(block + "output.LayerNorm")

    def matrix(self, name, rows, columns, scale):
        self.tensors[name] = ([rows, columns], [self.rng.gauss(0, scale) for _ in range(rows * columns)])

    def linear(self, name, rows, columns):
        self.matrix(name + ".weight", rows, columns, 1.5 / columns ** 0.5)
        self.tensors[name + ".bias"] = ([rows], [self.rng.gauss(0, 0.1) for _ in range(rows)])

    def norm(self, name):
        self.tensors[name + ".weight"] = ([self.hidden], [1 + self.rng.gauss(0, 0.1) for _ in range(self.hidden)])
        self.tensors[name + ".bias"] = ([self.hidden], [self.rng.gauss(0, 0.1) for _ in range(self.hidden)])


def write_folder(folder, config, tokenizer, tensors):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


def write_reranker(folder, positions=130, layers=2):
    """An XLM-R cross-encoder with a unigram tokenizer."""
    tokenizer, vocab = unigram_tokenizer()
    encoder = Encoder("roberta.", vocab, positions, 1, layers=layers)
    encoder.linear("classifier.dense", encoder.hidden, encoder.hidden)
    encoder.linear("classifier.out_proj", 1, encoder.hidden)
    config = {"model_type": "xlm-roberta", "architectures": ["XLMRobertaForSequenceClassification"],
              "hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 32,
              "vocab_size": vocab, "max_position_embeddings": positions, "type_vocab_size": 1,
              "layer_norm_eps": 1e-5, "hidden_act": "gelu", "pad_token_id": 1, "id2label": {"0": "LABEL_0"}}
    return write_folder(folder, config, tokenizer, encoder.tensors)


def write_embedder(folder):
    """A BERT embedder with a WordPiece tokenizer."""
    tokenizer, vocab = wordpiece_tokenizer()
    config = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 16, "num_hidden_layers": 2,
              "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": vocab,
              "max_position_embeddings": 128, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
              "hidden_act": "gelu", "pad_token_id": 0}
    return write_folder(folder, config, tokenizer, Encoder("", vocab, 128, 2).tensors)
