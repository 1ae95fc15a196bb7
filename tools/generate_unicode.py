#!/usr/bin/env python3
"""Writes include/terse/tokenizer/unicode_data.h from the Unicode Character Database.

Usage: tools/generate_unicode.py [UCD folder] > include/terse/tokenizer/unicode_data.h

The committed header was made from Debian's package unicode-data 15.0.0 (/usr/share/unicode). Every
property of a code point that the tokenizers ask for is packed into one record; code points share
records, and the map from code point to record is a table of three stages.

Token ids must equal those of Hugging Face tokenizers 0.23, which takes some properties from older
tables: general categories for BERT from Unicode 8.0 (crate unicode_categories 0.1.1), normal forms
and the marks of StripAccents from Unicode 9.0 (crate unicode-normalization-alignments 0.1.12). For
these, younger characters are unassigned, and the few later changes of category are undone.
"""

import pathlib
import sys

CODE_POINTS = 0x110000
LEAF_BITS = 4  # code points per block of the last stage: 16
NODE_BITS = 5  # blocks per block of the middle stage: 32

FLAGS = ["white_space", "letter", "number", "word", "mark", "bert_mark", "bert_punctuation",
         "bert_control", "nfc_inert", "nfd_inert", "nfkc_inert", "nfkd_inert"]

# Code points whose general category has changed since, where it makes a difference.
CATEGORIES_8 = {0x166D: "Po", 0x1734: "Mn", 0x1885: "Lo", 0x1886: "Lo", 0xA9BD: "Mc",
                0x111C9: "Po"}
CATEGORIES_9 = {0x1CF2: "Mc", 0x1CF3: "Mc", 0x111C9: "Po"}

# Grapheme_Cluster_Break, Extended_Pictographic and Indic_Conjunct_Break in one class: where two of
# them have a value, one follows from the class (every linker also extends).
GRAPHEME_CLASSES = ["other", "cr", "lf", "control", "extend", "non_joiner", "linker", "zwj",
                    "spacing_mark", "prepend", "regional_indicator", "hangul_l", "hangul_v",
                    "hangul_t", "hangul_lv", "hangul_lvt", "pictographic", "consonant"]
GRAPHEME_NAMES = {"CR": "cr", "LF": "lf", "Control": "control", "Extend": "extend", "ZWJ": "zwj",
                  "SpacingMark": "spacing_mark", "Prepend": "prepend",
                  "Regional_Indicator": "regional_indicator", "L": "hangul_l", "V": "hangul_v",
                  "T": "hangul_t", "LV": "hangul_lv", "LVT": "hangul_lvt"}

# Indic_Conjunct_Break, which Unicode 15.0 does not list yet, as Unicode 15.1 derives it (UAX 44).
CONJUNCT_SCRIPTS = {"Bengali", "Devanagari", "Gujarati", "Malayalam", "Oriya", "Telugu"}

HANGUL_SYLLABLES = range(0xAC00, 0xD7A4)  # decomposed by arithmetic, not by table


class Database:
    """The files of the UCD, each property as a list over all code points. Combining classes and
    decompositions are those of Unicode 9.0."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.category = ["Cn"] * CODE_POINTS
        self.combining_class = [0] * CODE_POINTS
        self.lowercase_delta = [0] * CODE_POINTS
        self.decomposition = {}  # code point -> (is_compatibility, [code points]), one level
        self.age = self.property_map("DerivedAge.txt")
        self.read_unicode_data()

    def exists_in(self, code, version):
        """Whether the code point was assigned in this major version of Unicode."""
        return self.age[code] is not None and float(self.age[code]) <= version

    def old_category(self, code, version, changed):
        return changed.get(code, self.category[code]) if self.exists_in(code, version) else "Cn"

    def rows(self, name):
        """(first, last, fields) of each line of a semicolon-separated file."""
        for line in (self.folder / name).read_text(encoding="utf-8").splitlines():
            fields = [field.strip() for field in line.split("#")[0].split(";")]
            if fields[0]:
                first, _, last = fields[0].partition("..")
                yield int(first, 16), int(last or first, 16), fields[1:]

    def property_map(self, name, column=0):
        """A list of the values in one column, None where the file is silent."""
        values = [None] * CODE_POINTS
        for first, last, fields in self.rows(name):
            values[first:last + 1] = [fields[column]] * (last + 1 - first)
        return values

    def property_set(self, name, value):
        """The set of code points whose line in the file names this value."""
        return {code for first, last, fields in self.rows(name) if fields[0] == value
                for code in range(first, last + 1)}

    def read_unicode_data(self):
        range_start = None
        for first, last, fields in self.rows("UnicodeData.txt"):
            if fields[0].endswith(", First>"):
                range_start = first
                continue
            if fields[0].endswith(", Last>"):
                first = range_start
            for code in range(first, last + 1):
                self.category[code] = fields[1]
                if self.exists_in(code, 9):
                    self.combining_class[code] = int(fields[2])
            if fields[4] and self.exists_in(last, 9):
                tag, _, codes = fields[4].rpartition("> ")
                self.decomposition[last] = (bool(tag), [int(c, 16) for c in codes.split()])
            if fields[12]:
                self.lowercase_delta[last] = int(fields[12], 16) - last

    def expand(self, code, compatibility):
        """Full decomposition, in the order of the mappings (no mapping needs reordering)."""
        is_compatibility, parts = self.decomposition.get(code, (True, None))
        if parts is None or (is_compatibility and not compatibility):
            return [code]
        return [c for part in parts for c in self.expand(part, compatibility)]


def grapheme_classes(database):
    classes = ["other"] * CODE_POINTS
    for first, last, fields in database.rows("auxiliary/GraphemeBreakProperty.txt"):
        classes[first:last + 1] = [GRAPHEME_NAMES[fields[0]]] * (last + 1 - first)
    for code in database.property_set("emoji/emoji-data.txt", "Extended_Pictographic"):
        assert classes[code] == "other"
        classes[code] = "pictographic"
    syllabic = database.property_map("IndicSyllabicCategory.txt")
    script = database.property_map("Scripts.txt")
    for code in range(CODE_POINTS):
        if script[code] not in CONJUNCT_SCRIPTS:
            continue
        if syllabic[code] == "Virama":
            assert classes[code] == "extend"
            classes[code] = "linker"
        elif syllabic[code] == "Consonant":
            assert classes[code] == "other"
            classes[code] = "consonant"
    classes[0x200C] = "non_joiner"  # extends a cluster, but ends an Indic conjunct
    return classes


def property_records(database):
    """(records, index): the distinct (flags, combining class, grapheme class, lowercase delta) and
    for each code point the number of its record."""
    white_space = database.property_set("PropList.txt", "White_Space")
    join_control = database.property_set("PropList.txt", "Join_Control")
    alphabetic = database.property_set("DerivedCoreProperties.txt", "Alphabetic")
    changed = {form: {code
                      for first, last, fields in database.rows("DerivedNormalizationProps.txt")
                      if fields[0] == form + "_QC" for code in range(first, last + 1)
                      if database.exists_in(code, 9)}
               for form in ("NFC", "NFD", "NFKC", "NFKD")}
    classes = grapheme_classes(database)
    numbers = {}
    index = []
    for code, category in enumerate(database.category):
        combining_class = database.combining_class[code]
        old_category = database.old_category(code, 8, CATEGORIES_8)
        has = {
            "white_space": code in white_space,
            "letter": category[0] == "L",
            "number": category[0] == "N",
            # \w of UTS 18 annex C
            "word": (code in alphabetic or category[0] == "M" or category in ("Nd", "Pc")
                     or code in join_control),
            "mark": database.old_category(code, 9, CATEGORIES_9)[0] == "M",
            "bert_mark": old_category == "Mn",
            "bert_punctuation": old_category[0] == "P" or (code < 0x80 and category[0] == "S"),
            "bert_control": old_category in ("Cc", "Cf", "Co"),
        }
        for form, codes in changed.items():
            has[form.lower() + "_inert"] = combining_class == 0 and code not in codes
        flags = sum(1 << bit for bit, name in enumerate(FLAGS) if has[name])
        record = (flags, combining_class, GRAPHEME_CLASSES.index(classes[code]),
                  database.lowercase_delta[code])
        index.append(numbers.setdefault(record, len(numbers)))
    return list(numbers), index


def entry_head(canonical, compatibility, compatibility_start):
    return len(canonical) | len(compatibility) << 8 | compatibility_start << 16


def decompositions(database):
    """(pool, index): for each code point the place in the pool of its entry, 0 for none."""
    pool = [0]
    index = [0] * CODE_POINTS
    for code in sorted(database.decomposition):
        if code in HANGUL_SYLLABLES:
            continue
        canonical = database.expand(code, compatibility=False)
        compatibility = database.expand(code, compatibility=True)
        index[code] = len(pool)
        if canonical == compatibility:
            pool += [entry_head(canonical, compatibility, 1)] + canonical
        else:
            pool.append(entry_head(canonical, compatibility, 1 + len(canonical)))
            pool += canonical + compatibility
    return pool, index


def compositions(database):
    """Sorted (first, second, composite) of all primary composites but Hangul syllables."""
    excluded = database.property_set("DerivedNormalizationProps.txt", "Full_Composition_Exclusion")
    return sorted((*parts, code) for code, (is_compatibility, parts) in
                  database.decomposition.items() if not is_compatibility and code not in excluded)


def split_blocks(values, bits):
    """(block number per block, distinct blocks joined)"""
    numbers = {}
    stage = []
    size = 1 << bits
    for start in range(0, len(values), size):
        block = tuple(values[start:start + size])
        stage.append(numbers.setdefault(block, len(numbers)))
    return stage, [value for block in numbers for value in block]


def print_array(element_type, name, values):
    print(f"inline constexpr {element_type} {name}[{len(values)}] = {{")
    line = "   "
    for value in values:
        text = f" {value},"
        if len(line) + len(text) > 100:
            print(line)
            line = "   "
        line += text
    print(line.rstrip(",") + "};\n")


def print_three_stages(name, values, leaf_type):
    nodes, leaves = split_blocks(values, LEAF_BITS)
    root, nodes = split_blocks(nodes, NODE_BITS)
    assert max(root) < 256 and max(nodes) < 65536
    print_array("std::uint8_t", f"k{name}Root", root)
    print_array("std::uint16_t", f"k{name}Nodes", nodes)
    print_array(leaf_type, f"k{name}Leaves", leaves)


def print_enum(name, comment, values):
    print(f"// {comment}")
    print(f"enum class {name} : std::uint8_t {{")
    for value in values:
        print(f"  {value},")
    print("};\n")


def main():
    database = Database(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/unicode")
    records, record_index = property_records(database)
    pool, pool_index = decompositions(database)
    assert len(records) <= 256 and len(pool) <= 65536
    print(__doc__.splitlines()[0].replace("Writes include/terse/tokenizer/unicode_data.h",
                                          "// Unicode 15.0 tables, generated"))
    print("//   tools/generate_unicode.py > include/terse/tokenizer/unicode_data.h")
    print("// (Debian package unicode-data). Read through unicode.h. Data: Unicode license.")
    print("// clang-format off\n#pragma once\n\n#include <cstdint>\n")
    print("namespace terse::unicode_data {\n")
    print("// Bits of Record::flags. X_inert: a starter that form X leaves alone whatever stands")
    print("// next to it on the left.")
    for bit, name in enumerate(FLAGS):
        camel = "".join(word.capitalize() for word in name.split("_"))
        print(f"inline constexpr std::uint16_t k{camel} = {1 << bit};")
    print()
    print_enum("GraphemeClass",
               "Grapheme_Cluster_Break with Extended_Pictographic and Indic_Conjunct_Break.",
               GRAPHEME_CLASSES)
    print("struct Record {\n  std::uint16_t flags;\n  std::uint8_t combining_class;\n"
          "  GraphemeClass grapheme_class;\n  std::int32_t lowercase_delta;\n};\n")
    print(f"inline constexpr unsigned kLeafBits = {LEAF_BITS};")
    print(f"inline constexpr unsigned kNodeBits = {NODE_BITS};\n")
    print(f"inline constexpr Record kRecords[{len(records)}] = {{")
    for flags, combining_class, grapheme_class, delta in records:
        print(f"    {{{flags}, {combining_class}, "
              f"GraphemeClass::{GRAPHEME_CLASSES[grapheme_class]}, {delta}}},")
    print("};\n")
    print("// Code point -> number of its record.")
    print_three_stages("Record", record_index, "std::uint8_t")
    print("// Code point -> place of its entry in the pool, 0 for none. An entry is a head, then its\n"
          "// full canonical and its full compatibility decomposition, one where they are equal. The\n"
          "// head: length of the canonical one, length of the other << 8, start of the other << 16.")
    print_three_stages("Decomposition", pool_index, "std::uint16_t")
    print_array("char32_t", "kDecompositionPool", pool)
    print("// Primary composites, sorted by (first, second).")
    print("struct Composition {\n  char32_t first;\n  char32_t second;\n  char32_t composite;\n};\n")
    composed = compositions(database)
    print_array("Composition", "kCompositions",
                [f"{{{first}, {second}, {code}}}" for first, second, code in composed])
    print("}  // namespace terse::unicode_data")


if __name__ == "__main__":
    main()
