#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "support.h"
#include "terse/torch_file.h"

using terse::TorchFile;
using terse_test::error_class_of;

namespace {

template <class T>
std::string le(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}
std::string le16(std::size_t value) { return le(static_cast<std::uint16_t>(value)); }
std::string le32(std::size_t value) { return le(static_cast<std::uint32_t>(value)); }
std::string le64(std::size_t value) { return le(static_cast<std::uint64_t>(value)); }

using Entries = std::vector<std::pair<std::string, std::string>>;

struct ZipOptions {
  std::size_t method = 0;
  std::size_t flags = 0x808;  // sizes behind the data, UTF-8 names: as torch writes
  bool zip64 = true;
  bool zip64_entry_sizes = false;
};

// A zip archive as torch.save lays it out: sizes only in the directory and behind the data, padding
// in the extra field, zip64 end record and locator.
std::string zip(const Entries& entries, const ZipOptions& options = {}) {
  std::string out, directory;
  for (const auto& [name, data] : entries) {
    const std::size_t header = out.size();
    const std::string padding = "FB" + le16(5) + "ZZZZZ";
    out += "PK\x03\x04" + le16(0) + le16(options.flags) + le16(options.method) +
           std::string(16, '\0') + le16(name.size()) + le16(padding.size()) + name + padding + data;
    out += "PK\x07\x08" + le32(0) + le32(data.size()) + le32(data.size());
    const bool wide = options.zip64_entry_sizes;
    const std::string extra =
        wide ? le16(1) + le16(24) + le64(data.size()) + le64(data.size()) + le64(header) : "";
    const std::string size = wide ? le32(UINT32_MAX) : le32(data.size());
    directory += "PK\x01\x02" + le32(0) + le16(options.flags) + le16(options.method) + le32(0) +
                 le32(0) + size + size + le16(name.size()) + le16(extra.size()) + le16(0) +
                 std::string(8, '\0') + (wide ? le32(UINT32_MAX) : le32(header)) + name + extra;
  }
  const std::size_t begin = out.size();
  out += directory;
  const std::size_t record = out.size();
  if (options.zip64) {
    out += "PK\x06\x06" + le64(44) + le16(0x31e) + le16(0x32d) + le32(0) + le32(0) +
           le64(entries.size()) + le64(entries.size()) + le64(directory.size()) + le64(begin);
    out += "PK\x06\x07" + le32(0) + le64(record) + le32(1);
  }
  return out + "PK\x05\x06" + le32(0) + le16(entries.size()) + le16(entries.size()) +
         le32(directory.size()) + le32(begin) + le16(0);
}

// Pieces of a pickle, named after the opcodes.
std::string text(std::string_view value) { return "X" + le32(value.size()) + std::string(value); }
std::string integer(std::int32_t value) { return "J" + le(value); }
std::string storage(std::string_view type, std::string_view key, std::int32_t count) {
  return "(" + text("storage") + "ctorch\n" + std::string(type) + "\n" + text(key) + text("cpu") +
         integer(count) + "tQ";
}
std::string tuple(const std::vector<std::int32_t>& values) {
  std::string out = "(";
  for (const std::int32_t value : values) out += integer(value);
  return out + "t";
}
const std::string kOrderedDict = "ccollections\nOrderedDict\n)R";
std::string tensor(const std::string& storage_code, std::int32_t offset,
                   const std::vector<std::int32_t>& size, const std::vector<std::int32_t>& stride) {
  return "ctorch._utils\n_rebuild_tensor_v2\n(" + storage_code + integer(offset) + tuple(size) +
         tuple(stride) + "\x89" + kOrderedDict + "tR";
}
std::string pickle(const std::string& body) { return "\x80\x02" + body + "."; }
std::string pickle_of(const std::string& tensor_code) {
  return pickle("}(" + text("weight") + tensor_code + "u");
}

const std::vector<float> kValues = {1.0f, 2.0f, 3.0f, 4.0f, 5.0f, 6.0f};

std::string values_bytes() {
  std::string bytes;
  for (const float value : kValues) bytes += le(value);
  return bytes;
}
std::string archive(const std::string& pickle_bytes, const ZipOptions& options = {}) {
  return zip({{"small/data.pkl", pickle_bytes},
              {"small/byteorder", "little"},
              {"small/data/0", values_bytes()},
              {"small/version", "3\n"}},
             options);
}

// Parses a copy that ends where its memory ends and reads all of every tensor.
std::shared_ptr<const TorchFile> parse(const std::string& bytes) {
  static std::vector<std::byte> copy;  // outlives the file that points into it
  copy.assign(bytes.size(), {});
  copy.shrink_to_fit();
  if (!bytes.empty()) std::memcpy(copy.data(), bytes.data(), bytes.size());
  auto file = TorchFile::parse(copy, "test");
  volatile int sum = 0;
  for (const auto& entry : file->entries()) {
    const auto* data = static_cast<const std::byte*>(entry.view.data);
    for (std::uint64_t i = 0; i < entry.view.size_bytes(); ++i) {
      sum = sum ^ std::to_integer<int>(data[i]);
    }
  }
  return file;
}
std::string class_of(const std::string& bytes) {
  return error_class_of([&] { parse(bytes); });
}
std::string class_of_tensor(const std::string& tensor_code) {
  return class_of(archive(pickle_of(tensor_code)));
}

}  // namespace

TEST_CASE("tensors of a saved dictionary") {
  const std::string code = tensor(storage("FloatStorage", "0", 6), 0, {2, 3}, {3, 1});
  for (const bool zip64 : {true, false}) {
    for (const bool wide : {true, false}) {
      const std::string bytes =
          archive(pickle_of(code), {.zip64 = zip64, .zip64_entry_sizes = wide});
      const auto file = parse(bytes);
      REQUIRE(file->entries().size() == 1);
      const auto& [name, view] = file->entries()[0];
      CHECK(name == "weight");
      CHECK(view.dtype == terse::DType::f32);
      CHECK(view.shape == terse::Shape{2, 3});
      CHECK(std::memcmp(view.data, kValues.data(), 24) == 0);
    }
  }
}

// nn.Module.state_dict() is an OrderedDict with an attribute _metadata, and the memo is used
// throughout.
TEST_CASE("tensors of a saved state_dict, with memo and attributes") {
  const std::string metadata = kOrderedDict + text("") + "}" + text("version") + "K\x01ss";
  const std::string body =
      "ccollections\nOrderedDict\nq" + std::string(1, '\0') + ")Rq\x01(" + text("weight") +
      tensor(storage("FloatStorage", "0", 6) + "q\x02", 0, {1, 4}, {9, 1}) + text("bias") +
      "ctorch._utils\n_rebuild_tensor_v2\n(h\x02K\x04" + integer(2) + "\x85" + integer(1) + "\x85" +
      "\x89h" + std::string(1, '\0') + ")RtRu}" + text("_metadata") + metadata + "sb";
  const auto file = parse(archive(pickle(body)));
  REQUIRE(file->entries().size() == 2);
  CHECK(file->entries()[0].view.shape == terse::Shape{1, 4});
  CHECK(file->entries()[1].name == "bias");
  CHECK(file->entries()[1].view.shape == terse::Shape{2});
  CHECK(std::memcmp(file->entries()[1].view.data, kValues.data() + 4, 8) == 0);
}

TEST_CASE("storage types, scalars, empty tensors, long integers") {
  CHECK(class_of_tensor(tensor(storage("HalfStorage", "0", 12), 0, {12}, {1})) == "none");
  CHECK(class_of_tensor(tensor(storage("BFloat16Storage", "0", 12), 3, {3, 3}, {3, 1})) == "none");
  CHECK(class_of_tensor(tensor(storage("DoubleStorage", "0", 3), 0, {3}, {1})) == "none");
  CHECK(class_of_tensor(tensor(storage("FloatStorage", "0", 6), 5, {}, {})) == "none");
  CHECK(class_of_tensor(tensor(storage("FloatStorage", "0", 6), 6, {2, 0, 3}, {3, 3, 1})) ==
        "none");
  CHECK(class_of_tensor(tensor(storage("IntStorage", "0", 6), 0, {6}, {1})) == "unsupported");
  const auto long_one = [](const std::string& bytes) {
    std::string code = tensor(storage("FloatStorage", "0", 6), 0, {77}, {1});
    return code.replace(code.find(integer(77)), 5,
                        "\x8a" + std::string(1, static_cast<char>(bytes.size())) + bytes);
  };
  CHECK(class_of_tensor(long_one("\x06")) == "none");
  CHECK(class_of_tensor(long_one("")) == "none");
  CHECK(class_of_tensor(long_one(std::string("\x06\0\0\0\0\0\0\0", 8))) == "none");
  CHECK(class_of_tensor(long_one("\xff")) == "shape");
  CHECK(class_of_tensor(long_one(std::string(8, '\x7f'))) == "offsets");
  CHECK(class_of_tensor(long_one(std::string(9, '\x01'))) == "overflow");
}

TEST_CASE("tensors that do not fit their storage are refused") {
  const std::string floats = storage("FloatStorage", "0", 6);
  CHECK(class_of_tensor(tensor(floats, 1, {6}, {1})) == "offsets");
  CHECK(class_of_tensor(tensor(floats, -1, {6}, {1})) == "offsets");
  CHECK(class_of_tensor(tensor(floats, 0, {7}, {1})) == "offsets");
  CHECK(class_of_tensor(tensor(floats, 0, {-6}, {1})) == "shape");
  CHECK(class_of_tensor(tensor(floats, 0, {2, 3}, {1, 2})) == "unsupported");
  CHECK(class_of_tensor(tensor(floats, 0, {6}, {0})) == "unsupported");
  CHECK(class_of_tensor(tensor(floats, 0, {6}, {1, 1})) == "schema");
  CHECK(class_of_tensor(tensor(storage("FloatStorage", "0", 5), 0, {5}, {1})) == "offsets");
  CHECK(class_of_tensor(tensor(storage("FloatStorage", "0", -6), 0, {6}, {1})) == "offsets");
  CHECK(class_of_tensor(tensor(storage("FloatStorage", "9", 6), 0, {6}, {1})) == "schema");
  CHECK(class_of_tensor(tensor(floats, 0, {1 << 30, 1 << 30, 1 << 30}, {1 << 30, 1 << 30, 1})) !=
        "none");
}

TEST_CASE("many tensors over the same bytes are refused") {
  std::string large;
  for (int i = 0; i < 10000; ++i) large += values_bytes();
  const std::string shared = "ctorch._utils\n_rebuild_tensor_v2\n(h\x07" + integer(0) +
                             tuple({60000}) + tuple({1}) + "\x89" + kOrderedDict + "tR";
  std::string body =
      "}(" + text("first") + tensor(storage("FloatStorage", "0", 60000) + "q\x07", 0, {60000}, {1});
  for (int i = 0; i < 9; ++i) body += text(std::to_string(i)) + shared;
  CHECK(class_of(zip({{"a/data.pkl", pickle(body + "u")}, {"a/data/0", large}})) == "coverage");
}

TEST_CASE("nothing is executed: other callables and opcodes are unsupported") {
  CHECK(class_of(archive(pickle("cos\nsystem\n" + text("true") + "\x85R"))) == "unsupported");
  CHECK(class_of(archive(pickle("cbuiltins\neval\n" + text("1") + "\x85R"))) == "unsupported");
  CHECK(class_of(archive(pickle("ctorch\nload\n)R"))) == "unsupported");
  CHECK(class_of(archive(pickle("ccollections\nCounter\n)R"))) == "unsupported");
  for (const char opcode : {'i', 'o', 'P', 'S', 'I', 'F', 'l', 'd', 'a', 'e', '\x81', '\x92',
                            '\x93', '\x94', '\x95', '\x82', '0', '2'}) {
    CHECK_MESSAGE(class_of(archive(pickle(std::string(1, opcode)))) == "unsupported", opcode);
  }
  CHECK(class_of(archive("\x80\x04}.")) == "unsupported");
}

TEST_CASE("malformed pickles are refused") {
  for (const std::string body :
       {"",   "t",     "u",         "s",          "}s", "}(K\x01u", "R",  ")R", "Q",
        ")Q", "q\x01", "h\x01",     "b",          "}b", "(}",       "}}", ")",  "}(K\x01K\x02u",
        "N",  "\x85",  "K\x01\x86", "(K\x01(\x85"}) {
    CHECK_MESSAGE(class_of(archive(pickle(body))) != "none", body);
  }
  CHECK(class_of(archive(pickle("}(" + text("a") + "Nu"))) == "schema");
  CHECK(class_of(archive("\x80\x02}")) == "truncated");
  CHECK(class_of(archive("\x80\x02}..")) == "schema");
  CHECK(class_of(archive("")) == "truncated");
  CHECK(class_of(archive("\x80\x02X\xff\xff\xff\xff")) == "truncated");
  CHECK(class_of(archive("\x80\x02"
                         "ctorch\nFloat")) == "truncated");
  CHECK(class_of(archive(pickle("}"))) == "none");
  CHECK(class_of(archive(pickle(std::string(2 << 20, 'N')))) == "limit");
  CHECK(class_of(archive("\x80\x02" + std::string(1000000, '('))) == "truncated");
}

TEST_CASE("zip archives that are not plain are refused") {
  const std::string good = pickle("}");
  CHECK(class_of(archive(good, {.method = 8})) == "unsupported");
  CHECK(class_of(archive(good, {.flags = 0x809})) == "unsupported");
  CHECK(class_of(zip({})) == "schema");
  CHECK(class_of(zip({{"data.pkl", good}})) == "schema");
  CHECK(class_of(zip({{"a/other", good}})) == "schema");
  CHECK(class_of(zip({{"a/data.pkl", good}, {"a/data.pkl", good}})) == "duplicate");
  CHECK(class_of(zip({{"a/data.pkl", good}, {"a/byteorder", "big"}})) == "unsupported");
  CHECK(class_of(archive(good) + "x") == "offsets");
  CHECK(class_of("PK\x03\x04") == "truncated");
  CHECK(class_of("") == "truncated");
}

TEST_CASE("every prefix and every changed byte is refused or read in bounds") {
  const std::string bytes =
      archive(pickle_of(tensor(storage("FloatStorage", "0", 6), 0, {2, 3}, {3, 1})));
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    CHECK_MESSAGE(class_of(bytes.substr(0, size)) != "none", size);
  }
  std::map<std::string, int> classes;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    for (int value = 0; value < 256; ++value) {
      std::string mutant = bytes;
      mutant[i] = static_cast<char>(value);
      ++classes[class_of(mutant)];
    }
  }
  for (const char* reached : {"none", "truncated", "offsets", "schema", "unsupported"}) {
    CHECK_MESSAGE(classes[reached] > 0, reached);
  }
}

TEST_CASE("the published layout gives the tensors of the safetensors beside it") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  for (const std::string name : {"sparse_linear", "colbert_linear"}) {
    const std::string path = *shared / "models" / "tiny-bge-m3" / name;
    const auto torch = TorchFile::open(path + ".pt");
    const auto safe = terse::SafeTensors::open(path + ".safetensors");
    CHECK(torch->entries().size() == safe->entries().size());
    for (const auto& entry : torch->entries()) {
      const auto* expected = safe->find(name + "." + entry.name);
      REQUIRE(expected != nullptr);
      CHECK(entry.view.shape == expected->shape);
      CHECK(std::memcmp(entry.view.data, expected->data, expected->size_bytes()) == 0);
    }
  }
}
