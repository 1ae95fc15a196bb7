// Packed models: the same bits as the folder, and every damaged or foreign file refused.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "support.h"
#include "terse/embed.h"
#include "terse/inspect.h"
#include "terse/models/loading.h"
#include "terse/models/registry.h"
#include "terse/ops/panels.h"
#include "terse/pack.h"
#include "terse/packed_file.h"
#include "terse/published.h"
#include "terse/rerank.h"
#include "terse/synth.h"

namespace {

using terse_test::error_class_of;
using terse_test::read_file;
using terse_test::shared_folder;
using terse_test::TemporaryFolder;
using terse_test::write_file;

const std::vector<terse::Pair>& pairs() {
  static const std::vector<terse::Pair> kPairs = {
      {"what is panda?", "hi"},
      {"what is panda?", "The giant panda (Ailuropoda melanoleuca) is a bear species."},
      {"", ""},
      {"日本の首都", "東京は日本の首都である。 Tokyo \t ünïcödé ﬁne"},
      {"a b c", std::string(300, 'x') + " and a long word"}};
  return kPairs;
}

terse::LoadOptions in(terse::DType dtype, int threads = 1) {
  terse::LoadOptions options;
  options.dtype = dtype;
  options.threads = threads;
  return options;
}

// The packed form of a model in a folder of its own.
struct Packed {
  Packed(const std::filesystem::path& model, terse::DType dtype) {
    terse::PackOptions options;
    options.load = in(dtype);
    terse::pack_model(model, path(), options);
  }
  std::filesystem::path path() const { return folder.path() / "model.terse"; }
  TemporaryFolder folder;
};

// Every output of the folder and of the packed file, compared bit for bit.
void check_same_bits(const std::filesystem::path& model, terse::DType dtype) {
  CAPTURE(model.string());
  const Packed packed(model, dtype);
  CHECK(terse::model_role(packed.path()) == terse::model_role(model));
  for (const int threads : {1, 3}) {
    if (terse::model_role(model) == terse::ModelRole::reranker) {
      const auto folder = terse::Reranker::load(model, in(dtype, threads));
      const auto file = terse::Reranker::load(packed.path(), in(dtype, threads));
      CHECK(folder.info().dtype == file.info().dtype);
      CHECK(folder.score(pairs()) == file.score(pairs()));
      if (folder.info().exits.empty()) continue;
      terse::ScoreOptions options;
      options.cutoff_layers = folder.info().exits;
      const auto expected = folder.score_each(pairs(), options);
      const auto got = file.score_each(pairs(), options);
      for (std::size_t i = 0; i < got.size(); ++i) CHECK(expected[i].scores == got[i].scores);
    } else {
      const auto folder = terse::Embedder::load(model, in(dtype, threads));
      const auto file = terse::Embedder::load(packed.path(), in(dtype, threads));
      terse::EmbedOptions options;
      options.sparse = options.colbert = folder.info().multi_vector;
      for (const terse::Pair& pair : pairs()) {
        const std::vector<terse::Text> texts = {{pair.passage, terse::TextKind::passage}};
        const auto expected = folder.embed(texts, options);
        const auto got = file.embed(texts, options);
        CHECK(expected[0].dense == got[0].dense);
        CHECK(expected[0].sparse == got[0].sparse);
        CHECK(expected[0].colbert == got[0].colbert);
      }
    }
  }
}

TEST_CASE("a packed model gives the bits of its folder: reference models") {
  const auto shared = shared_folder();
  if (!shared) return;
  for (const auto& entry : std::filesystem::directory_iterator(*shared / "models")) {
    if (!entry.is_directory()) continue;
    for (const terse::DType dtype : {terse::DType::f32, terse::DType::bf16, terse::DType::i8}) {
      check_same_bits(entry.path(), dtype);
    }
  }
}

// Made-up models of two layers with odd widths, stored in each type that models are published in.
TEST_CASE("a packed model gives the bits of its folder: made-up models") {
  for (const terse::DType stored : {terse::DType::f32, terse::DType::f16, terse::DType::bf16}) {
    const TemporaryFolder folder;
    auto config = nlohmann::json::parse(
        terse::published_config(terse::published_model("bge-reranker-base"), 2, stored));
    config.update({{"hidden_size", 72},
                   {"num_attention_heads", 3},
                   {"intermediate_size", 90},
                   {"vocab_size", 600},
                   {"max_position_embeddings", 514}});
    const auto model = folder.path() / "model";
    terse::SynthOptions options;
    options.seed = 7;
    options.dtype = stored;
    terse::write_synthetic_model(model, config.dump(), options);
    for (const terse::DType dtype : {terse::DType::f32, terse::DType::bf16, terse::DType::i8}) {
      check_same_bits(model, dtype);
    }
  }
}

// A small model to damage.
struct Small {
  Small() {
    auto config = nlohmann::json::parse(
        terse::published_config(terse::published_model("bge-reranker-base"), 1));
    config.update({{"hidden_size", 32},
                   {"num_attention_heads", 2},
                   {"intermediate_size", 48},
                   {"vocab_size", 600},
                   {"max_position_embeddings", 66}});
    terse::write_synthetic_model(model(), config.dump(), {});
    terse::PackOptions options;
    options.load = in(terse::DType::f32);
    terse::pack_model(model(), path(), options);
  }
  std::filesystem::path model() const { return folder.path() / "model"; }
  std::filesystem::path path() const { return folder.path() / "model.terse"; }
  std::filesystem::path damaged() const { return folder.path() / "damaged.terse"; }
  std::string load(const std::string& bytes) const {
    write_file(damaged(), bytes);
    return error_class_of([&] { terse::Reranker::load(damaged()); });
  }
  TemporaryFolder folder;
};

std::size_t header_bytes(const std::string& file) {
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof(length));
  return static_cast<std::size_t>(length);
}

// In the order of the file: digests stand in it.
using Header = nlohmann::ordered_json;

// The file with its header changed, and the digests made to fit: what an attacker would write.
std::string forged(const std::string& file, const std::function<void(Header&)>& change) {
  const std::size_t length = header_bytes(file);
  auto header = Header::parse(file.substr(8, length));
  const std::string data = file.substr(8 + length);
  change(header);
  std::string text = header.dump();
  text.append((64 - (text.size() + 8) % 64) % 64, ' ');
  std::string out(8, '\0');
  const std::uint64_t size = text.size();
  std::memcpy(out.data(), &size, sizeof(size));
  out += text + data;
  if (!header.contains("packed:digests")) return out;
  const auto begin =
      8 + text.size() + header["packed:digests"]["data_offsets"][0].get<std::size_t>();
  const auto bytes = std::as_bytes(std::span(out));
  const auto digest =
      terse::detail::packed_head_digest(bytes.first(8 + text.size()), bytes.subspan(begin + 32));
  std::memcpy(out.data() + begin, digest.data(), digest.size());
  return out;
}

TEST_CASE("a packed file that is damaged is refused") {
  const Small small;
  const std::string file = read_file(small.path());
  CHECK(small.load(file) == "none");
  // Cut anywhere.
  for (std::size_t size = 0; size < file.size(); size += size < 4096 ? 257 : 9973) {
    CAPTURE(size);
    CHECK(small.load(file.substr(0, size)) != "none");
  }
  CHECK(small.load(file + "x") == "coverage");
  // A bit flipped anywhere in the length, the header or the digests.
  const std::size_t head = 8 + header_bytes(file);
  const auto header = nlohmann::json::parse(file.substr(8, head - 8));
  const auto digests = head + header["packed:digests"]["data_offsets"][0].get<std::size_t>();
  for (std::size_t at = 0; at < head; at += 13) {
    CAPTURE(at);
    std::string flipped = file;
    flipped[at] = static_cast<char>(flipped[at] ^ 1 << at % 8);
    CHECK(small.load(flipped) != "none");
  }
  for (std::size_t at = digests; at < file.size(); at += 7) {
    CAPTURE(at);
    std::string flipped = file;
    flipped[at] = static_cast<char>(flipped[at] ^ 1 << at % 8);
    CHECK(small.load(flipped) == "io");
  }
  // A bit flipped in the config is found at once, one in a weight by the check of weights.
  const auto offset_of = [&](const char* name) {
    return head + header[name]["data_offsets"][0].get<std::size_t>();
  };
  std::string flipped = file;
  flipped[offset_of("packed:text/config.json") + 5] ^= 1;
  CHECK(small.load(flipped) == "io");
  flipped = file;
  flipped[offset_of("roberta.encoder.layer.0.intermediate.dense.panels") + 77] ^= 1;
  CHECK(small.load(flipped) == "none");
  terse::InspectOptions inspect;
  CHECK(error_class_of([&] { terse::inspect(small.damaged(), inspect); }) == "none");
  inspect.check_weights = true;
  CHECK(error_class_of([&] { terse::inspect(small.damaged(), inspect); }) == "io");
  CHECK(error_class_of([&] { terse::inspect(small.path(), inspect); }) == "none");
}

TEST_CASE("a packed file that is foreign is refused") {
  const Small small;
  const std::string file = read_file(small.path());
  const auto load = [&](const std::function<void(Header&)>& change) {
    return small.load(forged(file, change));
  };
  const auto meta = [&](const char* key, const char* value) {
    return load([&](Header& header) { header["__metadata__"][key] = value; });
  };
  CHECK(load([](Header&) {}) == "none");
  CHECK(meta("format", "pt") == "schema");
  CHECK(meta("version", "2") == "unsupported");
  CHECK(meta("byte_order", "big") == "unsupported");
  CHECK(meta("panels", "32 columns") == "unsupported");
  CHECK(meta("dtype", "f64") == "dtype");
  CHECK(load([](Header& header) { header.erase("__metadata__"); }) == "schema");
  // The panels of one type are not those of another.
  CHECK(meta("dtype", "bf16") != "none");
  CHECK(error_class_of([&] { terse::Reranker::load(small.path(), in(terse::DType::bf16)); }) ==
        "unsupported");
  // Sections out of bounds, overlapping, of overflowing size, of other shapes, absent.
  const std::string panels = "roberta.encoder.layer.0.output.dense.panels";
  CHECK(load([&](Header& header) {
          header[panels]["data_offsets"] = {1 << 30, (1 << 30) + 4 * 32 * 48};
        }) == "coverage");
  CHECK(load([&](Header& header) {
          header[panels]["data_offsets"] = header["packed:text/config.json"]["data_offsets"];
        }) == "offsets");
  CHECK(load([&](Header& header) {
          header[panels]["shape"] = {4294967296U, 4294967296U, 16};
        }) == "overflow");
  CHECK(load([&](Header& header) {
          header[panels]["shape"] = {1, 2 * 48, 16};
        }) == "shape_mismatch");
  CHECK(load([&](Header& header) { header[panels]["dtype"] = "I32"; }) == "dtype");
  const auto rename = [](Header& header, const std::string& from) {
    Header renamed;
    for (const auto& [name, entry] : header.items()) renamed[name == from ? "x" : name] = entry;
    header = renamed;
  };
  CHECK(load([&](Header& header) { rename(header, panels); }) == "missing_tensor");
  CHECK(load([&](Header& header) { rename(header, "packed:text/config.json"); }) == "io");
  CHECK(load([&](Header& header) { rename(header, "packed:text/tokenizer.json"); }) == "missing");
  CHECK(load([&](Header& header) { rename(header, "packed:digests"); }) == "missing_tensor");
  // Other files altogether; a big-endian length.
  write_file(small.damaged(), "");
  CHECK(error_class_of([&] { terse::Reranker::load(small.damaged()); }) == "truncated");
  CHECK(error_class_of([&] { terse::Reranker::load(small.model() / "model.safetensors"); }) ==
        "schema");
  std::string swapped = file;
  std::reverse(swapped.begin(), swapped.begin() + 8);
  CHECK(small.load(swapped) == "limit");
  CHECK(error_class_of([&] { terse::pack_model(small.path(), small.damaged()); }) == "unsupported");
}

// Every byte of the tokenizer's arrays may lie: what is read from them stays inside them.
TEST_CASE("a packed tokenizer that lies is refused or harmless") {
  const Small small;
  const std::string file = read_file(small.path());
  const std::size_t head = 8 + header_bytes(file);
  const auto header = nlohmann::json::parse(file.substr(8, head - 8));
  for (const auto& [name, entry] : header.items()) {
    if (!name.starts_with("packed:tokenizer/")) continue;
    CAPTURE(name);
    const auto begin = head + entry["data_offsets"][0].get<std::size_t>();
    const auto end = head + entry["data_offsets"][1].get<std::size_t>();
    const std::size_t step = std::max<std::size_t>((end - begin) / 60, 1);
    for (std::size_t at = begin; at < end; at += step) {
      std::string lying = file;
      for (std::size_t i = at; i < std::min(end, at + 4); ++i) lying[i] = static_cast<char>(0xfe);
      write_file(small.damaged(), lying);
      try {
        const auto tokenizer = terse::load_tokenizer(small.damaged());
        for (const terse::Pair& pair : pairs()) {
          for (const terse::TokenId id : tokenizer->encode(pair.passage)) {
            CHECK(id <= tokenizer->max_id());
            CHECK(id >= 0);
          }
        }
      } catch (const terse::Error&) {
      }
    }
  }
}

TEST_CASE("a packed tokenizer gives the ids of its file") {
  const auto shared = shared_folder();
  if (!shared) return;
  for (const auto& entry : std::filesystem::directory_iterator(*shared / "tokenizers")) {
    const auto file = entry.path() / "tokenizer.json";
    if (!std::filesystem::exists(file)) continue;
    CAPTURE(file.string());
    const auto expected = terse::Tokenizer::load(file);
    terse::PrebuiltArrays arrays;
    REQUIRE(expected.save(arrays));
    const std::string text =
        terse::detail::tokenizer_without_arrays(read_file(file), expected.type());
    const auto got = terse::Tokenizer::from_prebuilt(text, "prebuilt", arrays);
    CHECK(expected.describe() == got.describe());
    std::ifstream torture(*shared / "tokenizers" / "torture.txt");
    std::size_t lines = 0;
    for (std::string line; std::getline(torture, line); ++lines) {
      if (terse::utf8_valid_prefix(line) != line.size()) continue;
      CHECK(expected.encode(line) == got.encode(line));
    }
    CHECK(lines > 50);
    for (terse::TokenId id = 0; id <= expected.max_id(); id += 97) {
      CHECK(expected.id_to_token(id) == got.id_to_token(id));
    }
  }
}

// Panels and back, for every kind and odd shapes.
TEST_CASE("unpacking panels gives the weights they were made of") {
  for (const terse::DType dtype : {terse::DType::f32, terse::DType::bf16}) {
    for (const auto kind :
         {terse::LinearKind::plain, terse::LinearKind::qkv, terse::LinearKind::gated}) {
      for (const std::int64_t width : {1, 2, 15, 33}) {
        for (const std::int64_t rows : {1, 15, 16, 40}) {
          const std::size_t count = kind == terse::LinearKind::plain ? 1
                                    : kind == terse::LinearKind::qkv ? 3
                                                                     : 2;
          std::vector<terse::LinearPart> parts;
          for (std::size_t part = 0; part < count; ++part) {
            auto weight =
                std::make_shared<terse::Tensor>(terse::DType::f32, terse::Shape{rows, width});
            auto bias = std::make_shared<terse::Tensor>(terse::DType::f32, terse::Shape{rows});
            for (std::int64_t i = 0; i < rows * width; ++i) {
              // Whole numbers below 256 are exact in bf16.
              weight->data<float>()[i] =
                  static_cast<float>((i * 7 + 31 * static_cast<int>(part)) % 255);
            }
            for (std::int64_t i = 0; i < rows; ++i) {
              bias->data<float>()[i] = static_cast<float>(i + 100 * static_cast<int>(part));
            }
            auto owner = std::make_shared<
                std::pair<std::shared_ptr<terse::Tensor>, std::shared_ptr<terse::Tensor>>>(weight,
                                                                                           bias);
            parts.push_back({weight->view(), bias->view(), owner});
          }
          const terse::Tensor panels =
              terse::detail::panels_of({"", kind, dtype, parts, {}}, 1).panels;
          const terse::PanelWeight weight(kind, parts, terse::dtype_size(dtype));
          terse::TensorView bias{
              weight.bias(), terse::DType::f32, {weight.panels() * terse::kPanelColumns}};
          terse::PackedLinear packed;
          packed.kind = kind;
          packed.dtype = dtype;
          packed.in_features = width;
          packed.rows.assign(count, rows);
          packed.panels = panels.view();
          packed.bias = bias;
          const auto unpacked = terse::unpack_linear(packed);
          REQUIRE(unpacked.size() == count);
          for (std::size_t part = 0; part < count; ++part) {
            std::vector<float> expected(static_cast<std::size_t>(rows * width));
            std::vector<float> got(expected.size());
            terse::convert_to(expected.data(), parts[part].weight.data, terse::DType::f32,
                              expected.size());
            terse::convert_to(got.data(), unpacked[part].weight.data, dtype, got.size());
            CHECK(expected == got);
            CHECK(std::memcmp(parts[part].bias.data, unpacked[part].bias.data,
                              static_cast<std::size_t>(rows) * sizeof(float)) == 0);
          }
        }
      }
    }
  }
}

// A table without adopt_linear gets the weights back as rows.
TEST_CASE("a packed model runs on the reference table") {
  const Small small;
  terse::LoadOptions options = in(terse::DType::f32);
  options.isa = terse::Isa::reference;
  const auto folder = terse::Reranker::load(small.model(), options);
  const auto packed = terse::Reranker::load(small.path(), options);
  CHECK(folder.score(pairs()) == packed.score(pairs()));
}

// Bytes of a file's mapping that this process has touched (what is around a fault comes along);
// nothing if the file is not mapped.
std::optional<std::uint64_t> touched_bytes(const std::filesystem::path& path) {
  std::ifstream maps("/proc/self/smaps");
  std::optional<std::uint64_t> touched;
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    if (line.find('-') < line.find(' ')) inside = line.ends_with(path.string());
    if (!inside || !line.starts_with("Rss:")) continue;
    touched = touched.value_or(0) + std::stoull(line.substr(4)) * 1024;
  }
  return touched;
}

TEST_CASE("layers past the last exit stay untouched") {
  const TemporaryFolder folder;
  auto config = nlohmann::json::parse(
      terse::published_config(terse::published_model("bge-reranker-v2-minicpm-layerwise"), 20));
  config.update({{"hidden_size", 256},
                 {"num_attention_heads", 4},
                 {"num_key_value_heads", 4},
                 {"intermediate_size", 512},
                 {"vocab_size", 600},
                 {"start_layer", 2}});
  terse::write_synthetic_model(folder.path() / "model", config.dump(), {});
  const auto path = folder.path() / "model.terse";
  terse::pack_model(folder.path() / "model", path);
  const auto reranker = terse::Reranker::load(path);
  if (!touched_bytes(path)) return;  // a file system that is read, not mapped
  const std::uint64_t size = std::filesystem::file_size(path);
  const std::vector<terse::Pair> one = {pairs().front()};
  terse::ScoreOptions options;
  options.cutoff_layers = {2};
  reranker.score(one, options);
  const std::uint64_t shallow = *touched_bytes(path);
  CHECK(shallow < size / 4);  // 2 of 20 layers, and an embedding of a thirtieth of them
  options.cutoff_layers = {20};
  reranker.score(one, options);
  CHECK(*touched_bytes(path) > size / 4 * 3);
}

}  // namespace
