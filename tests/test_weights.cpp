#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "support.h"
#include "terse/weights.h"

using terse::Checkpoint;
using terse::Shape;
using terse::Weights;
using terse_test::error_class_of;
using terse_test::TemporaryFolder;
using terse_test::write_file;

namespace {

// The allocation that fails, counted down to zero; negative: none.
std::atomic<int> failing_allocation{-1};

}  // namespace

// Every allocation of this program passes here, so that each can be made to fail in turn. Never
// inlined, because GCC then takes malloc and delete for a mismatched pair.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (failing_allocation >= 0 && failing_allocation-- == 0) throw std::bad_alloc();
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

// A safetensors file of f32 tensors, all of shape (2, 2) and filled with one value.
void write_tensors(const std::filesystem::path& path, const std::vector<std::string>& names,
                   float value = 1.0f) {
  const std::vector<float> data(4, value);
  std::vector<terse::NamedTensor> entries;
  for (const std::string& name : names) {
    entries.push_back({name, {data.data(), terse::DType::f32, {2, 2}}});
  }
  terse::write_safetensors(path, entries);
}

void write_index(const std::filesystem::path& folder, const std::string& weight_map) {
  write_file(folder / "model.safetensors.index.json", R"({"weight_map":)" + weight_map + "}");
}

std::string class_of_open(const std::filesystem::path& path) {
  return error_class_of([&] { Checkpoint::open(path); });
}

template <class Call>
std::string message_of(Call&& call) {
  try {
    call();
  } catch (const terse::Error& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

float first_value(const terse::TensorView& view) {
  return terse::load_unaligned<float>(view.data, 0);
}

}  // namespace

TEST_CASE("scopes spell the names of the checkpoint") {
  const TemporaryFolder folder;
  write_tensors(folder.path() / "model.safetensors",
                {"encoder.layer.0.dense.weight", "encoder.layer.1.dense.weight", "bias"});
  const Weights root = Checkpoint::open(folder.path())->root();
  const Weights layer = root.scope("encoder").scope("layer", 1);
  CHECK(layer.prefix() == "encoder.layer.1.");
  CHECK(layer.has("dense.weight"));
  CHECK(layer.scope("dense").has("weight"));
  CHECK(!layer.has("weight"));
  CHECK(root.has("bias"));
  CHECK(!root.has(""));
  CHECK(root.get("bias", {2, 2}).shape == Shape{2, 2});
  CHECK(root.checkpoint()->unread() ==
        std::vector<std::string>{"encoder.layer.0.dense.weight", "encoder.layer.1.dense.weight"});
  layer.get_any("dense.weight");
  CHECK(root.checkpoint()->unread().size() == 1);
}

TEST_CASE("errors of get name the tensor, the file, what was expected and what was found") {
  const TemporaryFolder folder;
  const std::int64_t integers[] = {1, 2};
  const float floats[] = {1.0f, 2.0f};
  terse::write_safetensors(
      folder.path() / "model.safetensors",
      std::vector<terse::NamedTensor>{{"a.ids", {integers, terse::DType::i64, {2}}},
                                      {"a.weight", {floats, terse::DType::f32, {2}}}});
  const Weights weights = Checkpoint::open(folder.path())->root().scope("a");
  const auto get = [&](const char* name, const Shape& shape) {
    return [&weights, name, shape] { weights.get(name, shape); };
  };
  CHECK(error_class_of(get("weight", {2})) == "none");
  CHECK(error_class_of(get("weight", {1, 2})) == "shape_mismatch");
  CHECK(error_class_of(get("bias", {2})) == "missing_tensor");
  CHECK(error_class_of(get("ids", {2})) == "dtype");
  CHECK(weights.get_any("ids").dtype == terse::DType::i64);

  const std::string shape = message_of(get("weight", {3, 4}));
  CHECK(contains(shape, "model.safetensors: tensor \"a.weight\""));
  CHECK(contains(shape, "shape (2), expected (3, 4)"));
  CHECK(contains(message_of(get("ids", {2})), "\"a.ids\": type i64, expected f64, f32, f16"));
  CHECK(contains(message_of(get("bias", {2})), "\"a.bias\""));
}

TEST_CASE("a missing group is reported as one, with five names and the count") {
  const TemporaryFolder folder;
  write_tensors(folder.path() / "model.safetensors", {"layer.0.a"});
  const Weights layer = Checkpoint::open(folder.path())->root().scope("layer", 0);
  const std::vector<std::string> names = {"a", "b", "c", "d", "e", "f", "g", "h"};
  const std::string message = message_of([&] { layer.require(names); });
  CHECK(message.starts_with("missing_tensor: "));
  CHECK(contains(message, "7 tensors are missing: \"layer.0.b\", "));
  CHECK(contains(message, "\"layer.0.f\" and 2 more"));
  CHECK(!contains(message, "layer.0.g"));
  CHECK(message_of([&] { layer.require(std::vector<std::string>{"a"}); }).empty());
}

TEST_CASE("weights keep the files they point into") {
  const TemporaryFolder folder;
  write_tensors(folder.path() / "model.safetensors", {"a"}, 3.0f);
  std::unique_ptr<Weights> weights;
  {
    const auto checkpoint = Checkpoint::open(folder.path());
    weights = std::make_unique<Weights>(checkpoint->root());
  }
  std::filesystem::remove(folder.path() / "model.safetensors");
  CHECK(first_value(weights->get("a", {2, 2})) == 3.0f);
}

TEST_CASE("shards: the index decides which tensors there are and where") {
  const TemporaryFolder folder;
  const auto& path = folder.path();
  write_tensors(path / "one.safetensors", {"a", "b", "unnamed"}, 1.0f);
  std::filesystem::create_directory(path / "sub");
  write_tensors(path / "sub" / "two.safetensors", {"b", "c"}, 2.0f);
  write_index(path,
              R"({"a":"one.safetensors","b":"sub/two.safetensors","c":"sub/two.safetensors"})");
  const auto checkpoint = Checkpoint::open(path);
  CHECK(checkpoint->size() == 3);
  CHECK(first_value(checkpoint->root().get("b", {2, 2})) == 2.0f);
  CHECK(!checkpoint->root().has("unnamed"));
  CHECK(Checkpoint::open(path / "model.safetensors.index.json")->size() == 3);
  CHECK(Checkpoint::open(path / "one.safetensors")->size() == 3);

  // One file wins over an index, whatever the index says.
  write_tensors(path / "model.safetensors", {"single"});
  write_index(path, "null");
  CHECK(Checkpoint::open(path)->root().has("single"));
}

TEST_CASE("what an index may not say") {
  const TemporaryFolder folder;
  const auto& path = folder.path();
  write_tensors(path / "one.safetensors", {"a"});
  const auto class_of_shard = [&](const std::string& name) {
    write_index(path, nlohmann::json{{"a", name}}.dump());
    return class_of_open(path);
  };
  CHECK(class_of_shard("one.safetensors") == "none");
  for (const std::string name :
       {"", ".", "..", "/dev/zero", "../one.safetensors", "./one.safetensors", "sub//x.safetensors",
        "sub/../one.safetensors", "/one.safetensors", "one.safetensors/",
        "http://x/a.safetensors"}) {
    CHECK_MESSAGE(class_of_shard(name) == "path", name);
  }
  CHECK(class_of_shard(std::string("one.safetensors\0", 16)) == "path");
  CHECK(class_of_shard(std::string(1500, 'x') + ".safetensors") == "path");
  CHECK(class_of_shard("absent.safetensors") == "io");
  CHECK(class_of_shard("pytorch_model.bin") == "unsupported");
  CHECK(class_of_shard("model.safetensors.index.json") == "unsupported");
  write_file(path / "empty.safetensors", "");
  CHECK(class_of_shard("empty.safetensors") == "truncated");
  std::filesystem::create_directory(path / "folder.safetensors");
  CHECK(class_of_shard("folder.safetensors") == "io");
  for (const char* map : {"null", "[]", "\"one.safetensors\"", "{\"a\":1}", "{\"a\":null}"}) {
    write_index(path, map);
    CHECK_MESSAGE(class_of_open(path) == "schema", map);
  }
  write_index(path, R"({"a":"one.safetensors","x":"one.safetensors","y":"one.safetensors"})");
  CHECK(class_of_open(path) == "missing_tensor");
  write_index(path, R"({"a":"one.safetensors","a":"one.safetensors"})");
  CHECK(class_of_open(path) == "duplicate");
}

TEST_CASE("links of shards stay in the folder or in the blobs of the Hugging Face cache") {
  const TemporaryFolder temporary;
  const auto repository = temporary.path() / "models--x--y";
  const auto snapshot = repository / "snapshots" / "0123";
  std::filesystem::create_directories(snapshot);
  std::filesystem::create_directories(repository / "blobs");
  std::filesystem::create_directories(temporary.path() / "outside");
  write_tensors(repository / "blobs" / "abcd", {"a"});
  write_tensors(temporary.path() / "outside" / "file", {"a"});
  write_tensors(snapshot / "here.safetensors", {"a"});
  const auto class_of_link = [&](const std::filesystem::path& target) {
    std::filesystem::remove(snapshot / "link.safetensors");
    std::filesystem::create_symlink(target, snapshot / "link.safetensors");
    write_index(snapshot, R"({"a":"link.safetensors"})");
    return class_of_open(snapshot);
  };
  CHECK(class_of_link("../../blobs/abcd") == "none");
  CHECK(class_of_link("here.safetensors") == "none");
  CHECK(class_of_link("../../../outside/file") == "path");
  CHECK(class_of_link(temporary.path() / "outside" / "file") == "path");
  CHECK(class_of_link("/dev/zero") == "path");
  CHECK(class_of_link("link.safetensors") == "io");
  CHECK(class_of_link("absent.safetensors") == "io");
  std::filesystem::create_directory_symlink("../../../outside", snapshot / "sub");
  write_tensors(temporary.path() / "outside" / "file.safetensors", {"a"});
  write_index(snapshot, R"({"a":"sub/file.safetensors"})");
  CHECK(class_of_open(snapshot) == "path");

  // A folder whose name merely begins like the model's is outside.
  std::filesystem::create_directory(repository / "snapshots" / "0123-other");
  write_tensors(repository / "snapshots" / "0123-other" / "file", {"a"});
  CHECK(class_of_link("../0123-other/file") == "path");
}

TEST_CASE("further files are added under a prefix, and never replace a tensor") {
  const TemporaryFolder folder;
  write_tensors(folder.path() / "model.safetensors", {"a"});
  write_tensors(folder.path() / "sparse_linear.safetensors", {"weight", "bias"}, 5.0f);
  const auto checkpoint = Checkpoint::open(folder.path());
  checkpoint->add_file(folder.path() / "sparse_linear.safetensors", "sparse_linear");
  const Weights sparse = checkpoint->root().scope("sparse_linear");
  CHECK(first_value(sparse.get("weight", {2, 2})) == 5.0f);
  const auto add_again = [&] {
    checkpoint->add_file(folder.path() / "sparse_linear.safetensors", "sparse_linear");
  };
  CHECK(error_class_of(add_again) == "duplicate");
  write_tensors(folder.path() / "more.safetensors", {"0", "a", "z"});
  CHECK(error_class_of([&] { checkpoint->add_file(folder.path() / "more.safetensors", ""); }) ==
        "duplicate");
  CHECK(checkpoint->size() == 3);
  checkpoint->add_file(folder.path() / "more.safetensors", "more");
  CHECK(checkpoint->root().has("more.z"));

  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  checkpoint->add_file(*shared / "models" / "tiny-bge-m3" / "colbert_linear.pt", "colbert_linear");
  CHECK(checkpoint->root().scope("colbert_linear").get("weight", {64, 64}).dtype ==
        terse::DType::f32);
}

TEST_CASE("usage counts tensors, elements and bytes by type") {
  const TemporaryFolder folder;
  const std::vector<float> data(6);
  terse::write_safetensors(
      folder.path() / "model.safetensors",
      std::vector<terse::NamedTensor>{{"a", {data.data(), terse::DType::f32, {2, 3}}},
                                      {"b", {data.data(), terse::DType::bf16, {5}}},
                                      {"c", {data.data(), terse::DType::bf16, {}}}});
  const auto usage = Checkpoint::open(folder.path())->usage();
  REQUIRE(usage.size() == 2);
  CHECK(usage.at(terse::DType::f32).bytes == 24);
  CHECK(usage.at(terse::DType::bf16).tensors == 2);
  CHECK(usage.at(terse::DType::bf16).elements == 6);
  CHECK(usage.at(terse::DType::bf16).bytes == 12);
}

TEST_CASE("the scan for NaN and infinity names the first tensor, with any number of threads") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "model.safetensors";
  std::vector<float> large(3000000, 1.0f);
  std::vector<std::uint16_t> halves = {0x3c00, 0x7bff, 0x0001, 0xfbff};
  const auto scan = [&](int threads) {
    terse::write_safetensors(
        path, std::vector<terse::NamedTensor>{{"z", {halves.data(), terse::DType::f16, {4}}},
                                              {"a", {large.data(), terse::DType::f32, {3000000}}},
                                              {"n", {large.data(), terse::DType::i32, {4}}}});
    return message_of([&] { Checkpoint::open(folder.path())->check_finite(threads); });
  };
  for (const int threads : {1, 2, 7}) {
    CHECK(scan(threads).empty());
    halves[3] = 0xfc00;
    CHECK(contains(scan(threads), "tensor \"z\" has a NaN or infinity at element 3"));
    large[2999999] = std::nanf("");
    CHECK(contains(scan(threads), "tensor \"a\" has a NaN or infinity at element 2999999"));
    large[5] = INFINITY;
    CHECK(contains(scan(threads), "nonfinite: "));
    CHECK(contains(scan(threads), "tensor \"a\" has a NaN or infinity at element 5"));
    large[2999999] = large[5] = 1.0f;
    halves[3] = 0xfbff;
  }
}

TEST_CASE("a checkpoint may be read from many threads") {
  const TemporaryFolder folder;
  write_tensors(folder.path() / "model.safetensors", {"a", "b", "c", "d"});
  const Weights root = Checkpoint::open(folder.path())->root();
  std::vector<std::thread> threads;
  for (int worker = 0; worker < 4; ++worker) {
    threads.emplace_back([&root] {
      for (int round = 0; round < 100; ++round) {
        for (const char* name : {"a", "b", "c"}) root.get(name, {2, 2});
        root.checkpoint()->unread();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(root.checkpoint()->unread() == std::vector<std::string>{"d"});
}

TEST_CASE("every allocation may fail once: a memory error, and the next call succeeds") {
  const TemporaryFolder folder;
  write_tensors(folder.path() / "one.safetensors", {"a", "b"});
  write_tensors(folder.path() / "two.safetensors", {"c"});
  write_index(folder.path(),
              R"({"a":"one.safetensors","b":"one.safetensors","c":"two.safetensors"})");
  const std::string path = folder.path();
  const std::string more = folder.path() / "two.safetensors";
  int failures = 0;
  for (bool failed = true; failed; ++failures) {
    auto checkpoint = Checkpoint::open(path);
    failing_allocation = failures;
    const std::string found = error_class_of([&] {
      Checkpoint::open(path);
      checkpoint->add_file(more, "more");
    });
    failed = failing_allocation < 0;
    failing_allocation = -1;
    CHECK(found == (failed ? "memory" : "none"));
    if (failed) checkpoint->add_file(more, "more");
    CHECK(checkpoint->size() == 4);
  }
  CHECK(failures > 50);
}

// Of the model folders in the corpus, those whose fault lies in the files themselves; the others
// open and are refused by the model that asks for its tensors.
TEST_CASE("hostile model folders get their classes") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  const std::map<std::string, std::string> classes = {
      {"md_base", "none"},
      {"md_bf16", "none"},
      {"md_f64", "none"},
      {"md_unaligned", "none"},
      {"md_extra_buffer", "none"},
      {"md_shards", "none"},
      {"md_shards_total_lie", "none"},
      {"md_no_weights", "io"},
      {"md_sh_index_cut", "json"},
      {"md_sh_lfs", "limit"},
      {"md_sh_map_list", "schema"},
      {"md_sh_map_null", "schema"},
      {"md_sh_map_string", "schema"},
      {"md_sh_map_value_null", "schema"},
      {"md_sh_map_value_num", "schema"},
      {"md_sh_no_map", "schema"},
      {"md_sh_not_in_shard", "missing_tensor"},
      {"md_sh_path_abs", "path"},
      {"md_sh_path_config", "unsupported"},
      {"md_sh_path_deep_parent", "path"},
      {"md_sh_path_empty", "path"},
      {"md_sh_path_nul", "path"},
      {"md_sh_path_parent", "path"},
      {"md_sh_path_self", "unsupported"},
      {"md_sh_path_url", "path"},
      {"md_sh_truncated", "truncated"},
      {"md_sh_truncated_header", "truncated"},
  };
  for (const auto& [folder, expected] : classes) {
    const std::string name = folder;  // a binding cannot be captured
    CHECK_MESSAGE(class_of_open(*shared / "hostile" / name) == expected, name);
  }
  // The rest open; the fault shows when the first layer is asked for.
  constexpr const char* kQuery = "roberta.encoder.layer.0.attention.self.query.weight";
  for (const std::string folder :
       {"md_shape_flat", "md_shape_rank3", "md_shape_rank_2000", "md_shape_zero"}) {
    const auto checkpoint = Checkpoint::open(*shared / "hostile" / folder);
    const auto get = [&] { checkpoint->root().get(kQuery, {8, 8}); };
    CHECK_MESSAGE(error_class_of(get) == "shape_mismatch", folder);
  }
  for (const std::string folder :
       {"md_empty_weights", "md_missing_layer", "md_renamed", "md_sh_map_empty"}) {
    const auto checkpoint = Checkpoint::open(*shared / "hostile" / folder);
    const auto get = [&] { checkpoint->root().get(kQuery, {8, 8}); };
    CHECK_MESSAGE(error_class_of(get) == "missing_tensor", folder);
  }
  for (const std::string folder : {"md_inf", "md_nan_query", "md_ninf_ln", "md_snan"}) {
    const auto checkpoint = Checkpoint::open(*shared / "hostile" / folder);
    CHECK_MESSAGE(error_class_of([&] { checkpoint->check_finite(2); }) == "nonfinite", folder);
  }
}
