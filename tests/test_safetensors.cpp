#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support.h"
#include "terse/safetensors.h"

using terse::SafeTensors;
using terse_test::error_class_of;
using terse_test::TemporaryFolder;

namespace {

std::string file_bytes(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + header + data;
}

// Parses a copy that ends where its memory ends, so that the address sanitizer sees any step past
// it, and reads every byte that a tensor claims to have.
struct Parsed {
  explicit Parsed(const std::string& text) : bytes(text.size()) {
    if (!text.empty()) std::memcpy(bytes.data(), text.data(), text.size());
    tensors = SafeTensors::parse(bytes, "test");
    for (const auto& entry : tensors->entries()) {
      const auto* data = static_cast<const std::byte*>(entry.view.data);
      for (std::uint64_t i = 0; i < entry.view.size_bytes(); ++i)
        sum += std::to_integer<int>(data[i]);
    }
  }
  std::vector<std::byte> bytes;
  std::shared_ptr<const SafeTensors> tensors;
  std::int64_t sum = 0;
};

std::string class_of_bytes(const std::string& bytes) {
  return error_class_of([&] { Parsed parsed(bytes); });
}
std::string class_of(const std::string& header, const std::string& data) {
  return class_of_bytes(file_bytes(header, data));
}

// The header entry of a tensor t with 8 bytes of data.
std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"t":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets +
         "}}";
}

const std::string kTwoFloats = entry(R"("F32")", "[2]", "[0,8]");

// A small file with everything a header can have: 2 x 3, a scalar, an empty tensor, metadata.
std::string sample_file() {
  return file_bytes(
      R"({"__metadata__":{"format":"pt"},"a.weight":{"dtype":"F32","shape":[2,3],)"
      R"("data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[],"data_offsets":[24,26]},)"
      R"("empty":{"dtype":"I64","shape":[0,4],"data_offsets":[24,24]}} )",
      std::string(26, '\x5a'));
}

}  // namespace

TEST_CASE("names, types, shapes, data and metadata come out as they are in the file") {
  const Parsed parsed(sample_file());
  const SafeTensors& file = *parsed.tensors;
  REQUIRE(file.entries().size() == 3);
  CHECK(file.entries()[0].name == "a.weight");
  CHECK(file.metadata() == terse::Metadata{{"format", "pt"}});
  const terse::TensorView* a = file.find("a.weight");
  REQUIRE(a != nullptr);
  CHECK(a->dtype == terse::DType::f32);
  CHECK(a->shape == terse::Shape{2, 3});
  CHECK(static_cast<const std::byte*>(a->data) + 26 == parsed.bytes.data() + parsed.bytes.size());
  CHECK(file.find("b")->shape.empty());
  CHECK(file.find("empty")->size() == 0);
  CHECK(file.find("c") == nullptr);
  CHECK(file.find("") == nullptr);
  CHECK(parsed.sum == 26 * 0x5a);
}

TEST_CASE("every rule of the format has its class") {
  const std::string eight(8, '\0');
  CHECK(class_of(kTwoFloats, eight) == "none");
  CHECK(class_of("\r\n\t " + kTwoFloats + " \t\r\n", eight) == "none");
  CHECK(class_of("{}", "") == "none");
  CHECK(class_of(R"({"":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})", eight) == "none");

  CHECK(class_of_bytes("") == "truncated");
  CHECK(class_of_bytes("1234567") == "truncated");
  CHECK(class_of_bytes(std::string("\xff\xff\xff\xff\xff\xff\xff\xff", 8)) == "limit");
  CHECK(class_of("", "") == "json");
  CHECK(class_of("[]", "") == "json");
  CHECK(class_of(kTwoFloats + std::string(3, '\0'), eight) == "json");
  CHECK(class_of("\xEF\xBB\xBF" + kTwoFloats, eight) == "json");
  CHECK(class_of("{\"\xff\":1}", "") == "utf8");
  CHECK(class_of(std::string(20, '['), "") == "limit");
  CHECK(class_of(R"({"a":1,"\u0061":1})", "") == "duplicate");
  CHECK(class_of(R"({"__metadata__":null})", "") == "schema");
  CHECK(class_of(R"({"__metadata__":{"a":1}})", "") == "schema");
  CHECK(class_of(R"({"t":{}})", "") == "schema");
  CHECK(class_of(entry("1", "[2]", "[0,8]"), eight) == "schema");
  CHECK(class_of(entry(R"("f32")", "[2]", "[0,8]"), eight) == "dtype");
  for (const char* shape : {"2", "null", "[-2]", "[2.0]", "[\"2\"]", "[true]", "[[2]]",
                            "[18446744073709551616]", "[1e999]"}) {
    CHECK_MESSAGE(class_of(entry(R"("F32")", shape, "[0,8]"), eight) == "shape", shape);
  }
  for (const char* shape : {"[18446744073709551615,0]", "[0,9223372036854775808]",
                            "[4294967296,4294967296]", "[4611686018427387904]",
                            "[4194305,4194305,211106198978564]", "[18446744073709551615,2,0]"}) {
    CHECK_MESSAGE(class_of(entry(R"("F32")", shape, "[0,8]"), eight) == "overflow", shape);
  }
  for (const char* offsets : {"null", "[]", "[0]", "[0,8,8]", "[8,0]", "[-8,0]", "[0,8.0]",
                              "[0,18446744073709551624]", "[0,4]", "[0,9]", "{\"0\":0,\"1\":8}"}) {
    CHECK_MESSAGE(class_of(entry(R"("F32")", "[2]", offsets), eight) == "offsets", offsets);
  }
  CHECK(class_of(entry(R"("F32")", "[2]", "[1,9]"), eight + "1") == "coverage");
  CHECK(class_of(kTwoFloats, eight + "1") == "coverage");
  CHECK(class_of(kTwoFloats, "1234567") == "truncated");
  CHECK(class_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                 R"("b":{"dtype":"U8","shape":[5],"data_offsets":[3,8]}})",
                 eight) == "coverage");
  CHECK(class_of(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},)"
                 R"("b":{"dtype":"U8","shape":[0],"data_offsets":[4,4]}})",
                 eight) == "coverage");
}

TEST_CASE("messages say what a wrong file probably is") {
  const std::map<std::string, std::string> causes = {
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"},
      {"<!DOCTYPE html><html></html>", "HTML page"},
      {"<html lang=\"en\"><body></body></html>", "HTML page"},
      {"Entry not found", "download went wrong"},
      {std::string("PK\x03\x04\x00\x00\x08\x08\x01", 9), "zip archive"},
      {std::string("GGUF\x03\0\0\0\xff", 9), "GGUF"},
  };
  for (const auto& [bytes, cause] : causes) {
    const auto span = std::as_bytes(std::span(bytes));
    std::string what;
    try {
      SafeTensors::parse(span, "model.safetensors");
    } catch (const terse::Error& error) {
      what = error.what();
    }
    CHECK_MESSAGE(what.find(cause) != std::string::npos, what);
    CHECK(what.starts_with("limit: model.safetensors: "));
  }
}

TEST_CASE("foreign names stay on one short line") {
  const std::string name = "\\n\\u0000" + std::string(30000, 'x');
  const std::string header = R"({")" + name + R"(":{"dtype":"?","shape":[],"data_offsets":[0,0]}})";
  const std::string bytes = file_bytes(header, "");
  try {
    SafeTensors::parse(std::as_bytes(std::span(bytes)), "file");
    FAIL("accepted an unknown type");
  } catch (const terse::Error& error) {
    const std::string what = error.what();
    CHECK(what.size() <= 500);
    CHECK(what.find('\n') == std::string::npos);
    CHECK(what.find("unknown dtype") != std::string::npos);
  }
}

TEST_CASE("every prefix of a file is truncated, or cut JSON") {
  const std::string file = sample_file();
  for (std::size_t size = 0; size < file.size(); ++size) {
    CHECK_MESSAGE(class_of_bytes(file.substr(0, size)) == "truncated", size);
  }
  CHECK(class_of_bytes(file) == "none");
}

// 200,000 files that differ from a valid one in one or two bytes: each is refused or read within
// its bounds (the sanitizers watch).
TEST_CASE("mutants are refused or read, nothing else") {
  const std::string file = sample_file();
  std::map<std::string, std::size_t> classes;
  std::size_t mutants = 0;
  const auto try_one = [&](const std::string& mutant) {
    ++mutants;
    ++classes[class_of_bytes(mutant)];
  };
  for (std::size_t i = 0; i < file.size(); ++i) {
    const auto byte = static_cast<unsigned char>(file[i]);
    std::vector<int> replacements = {0x00, 0xff, byte + 1, byte - 1};
    for (int bit = 0; bit < 8; ++bit) replacements.push_back(byte ^ 1 << bit);
    for (const int replacement : replacements) {
      std::string mutant = file;
      mutant[i] = static_cast<char>(replacement);
      try_one(mutant);
    }
  }
  const std::string structural = "{}[]:,\"\\019-e \xc3";
  for (std::size_t i = 0; i < file.size(); ++i) {
    for (std::size_t j = i + 1; j < file.size(); ++j) {
      for (std::size_t k = 0; k < 7; ++k) {
        std::string mutant = file;
        mutant[i] = static_cast<char>(mutant[i] ^ 1 << (j + k) % 8);
        mutant[j] = structural[(i + j + k) % structural.size()];
        try_one(mutant);
      }
    }
  }
  CHECK(mutants >= 200000);
  // The classes a changed byte can lead to are all there, and no other.
  for (const char* reached : {"none", "json", "utf8", "limit", "truncated", "schema", "dtype",
                              "shape", "offsets", "coverage"}) {
    CHECK_MESSAGE(classes[reached] > 0, reached);
  }
  CHECK(classes.size() <= 12);  // overflow and duplicate may occur
}

TEST_CASE("half a million tensors over the same bytes are refused quickly") {
  std::string header = "{";
  for (int i = 0; i < 500000; ++i) {
    header += "\"" + std::to_string(i) + R"(":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},)";
  }
  header.back() = '}';
  CHECK(class_of(header, std::string(8, '\0')) == "coverage");
}

TEST_CASE("a header of 10^6 tensors and nearly 100 MB is read") {
  constexpr int kTensors = 1000000;
  std::string header = "{";
  header.reserve(terse::kMaxSafeTensorsHeaderBytes);
  for (int i = 0; i < kTensors; ++i) {
    const std::string index = std::to_string(i);
    header += R"("model.layer.)" + std::string(20 - index.size(), '0') + index +
              R"(":{"dtype":"F16","shape":[1,2],"data_offsets":[)" + std::to_string(4 * i) + "," +
              std::to_string(4 * i + 4) + "]},";
  }
  header.back() = '}';
  REQUIRE(header.size() < terse::kMaxSafeTensorsHeaderBytes);
  const std::string bytes = file_bytes(header, std::string(4 * kTensors, '\0'));
  const auto start = std::chrono::steady_clock::now();
  const auto file = SafeTensors::parse(std::as_bytes(std::span(bytes)), "test");
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  MESSAGE(header.size() << " bytes of header in " << seconds.count() << " s");
  CHECK(file->entries().size() == kTensors);
  CHECK(file->find("model.layer.00000000000000999999") != nullptr);
}

TEST_CASE("what is written is read back, aligned to 64 bytes") {
  const TemporaryFolder folder;
  const std::string path = folder.path() / "out.safetensors";
  const std::vector<float> weight = {1.0f, -2.5f, 3.0f, 0.0f, 1e-40f, 6.0f};
  const std::vector<std::uint8_t> bytes = {1, 2, 3};
  const std::vector<terse::NamedTensor> entries = {
      {"layer.\"0\"\n\u00e9", {bytes.data(), terse::DType::u8, {3}}},
      {"weight", {weight.data(), terse::DType::f32, {2, 3}}},
      {"empty", {nullptr, terse::DType::f16, {0, 7}}},
      {"scalar", {weight.data(), terse::DType::f32, {}}},
  };
  const terse::Metadata metadata = {{"format", "pt"}, {"a\tb", "\u4e2d"}};
  terse::write_safetensors(path, entries, metadata);

  const auto file = SafeTensors::open(path);
  CHECK(file->metadata() == metadata);
  REQUIRE(file->entries().size() == entries.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const auto& [name, view] = file->entries()[i];
    CHECK(name == entries[i].name);
    CHECK(view.dtype == entries[i].view.dtype);
    CHECK(view.shape == entries[i].view.shape);
    const bool same =
        view.size() == 0 || std::memcmp(view.data, entries[i].view.data, view.size_bytes()) == 0;
    CHECK(same);
  }
  const auto* first = static_cast<const std::byte*>(file->entries()[0].view.data);
  CHECK((first - file->file()->bytes().data()) % 64 == 0);

  terse::write_safetensors(path, {});
  CHECK(SafeTensors::open(path)->entries().empty());
}

TEST_CASE("the writer refuses what no reader would take") {
  const TemporaryFolder folder;
  const std::string path = folder.path() / "out.safetensors";
  const float value = 1.0f;
  const terse::TensorView scalar{&value, terse::DType::f32, {}};
  const auto class_of_writing = [&](std::vector<terse::NamedTensor> entries) {
    return error_class_of([&] { terse::write_safetensors(path, entries); });
  };
  CHECK(class_of_writing({{"a", scalar}, {"a", scalar}}) == "duplicate");
  CHECK(class_of_writing({{"\xff", scalar}}) == "utf8");
  CHECK(class_of_writing({{"__metadata__", scalar}}) == "schema");
  CHECK(error_class_of([&] {
          terse::SafeTensorsWriter writer(path, std::vector<terse::NamedTensor>{{"a", scalar}});
          writer.commit();
        }) == "truncated");
  CHECK(error_class_of([&] {
          terse::SafeTensorsWriter writer(path, std::vector<terse::NamedTensor>{{"a", scalar}});
          writer.append(std::as_bytes(std::span(&value, 1)));
          writer.append(std::as_bytes(std::span(&value, 1)));
        }) == "offsets");
  CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("the hostile corpus gets its verdicts and classes") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  std::ifstream manifest(*shared / "hostile" / "manifest.jsonl");
  int cases = 0;
  for (std::string line; std::getline(manifest, line);) {
    const auto record = nlohmann::json::parse(line);
    const std::string file = record["file"];
    if (!file.starts_with("st_")) continue;
    ++cases;
    const std::string found =
        error_class_of([&] { SafeTensors::open(*shared / "hostile" / file); });
    const bool ok = record["expect"] == "ok";
    const std::string expected = ok ? "none" : record["class"].get<std::string>();
    // Where two classes are reasonable they are written as "a|b".
    const bool agrees = ("|" + expected + "|").find("|" + found + "|") != std::string::npos;
    CHECK_MESSAGE(agrees, file, ": found ", found, ", expected ", expected);
  }
  CHECK(cases == 175);
}
