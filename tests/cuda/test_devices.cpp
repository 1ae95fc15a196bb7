// Devices that are several, missing, full or lost. Emulation alone can be asked for them.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "../support.h"
#include "../tiny_decoder.h"
#include "emu.h"
#include "terse/ops/cuda_backend.h"
#include "terse/rerank.h"

namespace {

using terse::Device;
using terse_test::error_class_of;
using terse_test::TemporaryFolder;
using terse_test::TinyDecoder;

terse::LoadOptions on(Device device) {
  terse::LoadOptions options;
  options.device = device;
  options.threads = 2;
  options.batch_tokens = 64;  // many groups
  return options;
}

std::vector<terse::Pair> make_pairs() {
  std::vector<terse::Pair> pairs;
  for (int i = 0; i < 12; ++i) {
    pairs.push_back({"what is panda?", std::string(static_cast<std::size_t>(3 + 5 * i), 'a')});
  }
  return pairs;
}

}  // namespace

// First in the program: what is found once is kept.
TEST_CASE("without a driver or a device there is an Error, and automatic is the CPU") {
  const TemporaryFolder temporary;
  TinyDecoder("gemma").write(temporary.path());
  for (const bool driver : {false, true}) {
    CAPTURE(driver);
    emu::Options options = emu::options();
    options.driver = driver;
    options.device_count = driver ? 0 : 1;
    const emu::ScopedOptions scoped(options);
    CHECK(error_class_of([&] { terse::Reranker::load(temporary.path(), on(Device::cuda)); }) ==
          "device");
    const auto reranker = terse::Reranker::load(temporary.path(), on(Device::automatic));
    CHECK(reranker.info().device == Device::cpu);
    CHECK(reranker.info().device_note.starts_with("device: no CUDA device"));
    CHECK(reranker.score(make_pairs()).size() == 12);
  }
}

TEST_CASE("an older device is refused") {
  emu::Options options = emu::options();
  options.compute_capability = 75;
  const emu::ScopedOptions scoped(options);
  CHECK(error_class_of([] { terse::cuda::find_devices(); }) == "device");
}

TEST_CASE("pairs are spread over two devices and come back in order") {
  emu::Options options = emu::options();
  options.device_count = 2;
  const emu::ScopedOptions scoped(options);
  const TemporaryFolder temporary;
  TinyDecoder("minicpm").write(temporary.path());
  terse::LoadOptions load = on(Device::automatic);
  load.batch_tokens = 8;  // so few that texts are tokenized beside the passes too
  const auto reranker = terse::Reranker::load(temporary.path(), load);
  CHECK(reranker.info().device == Device::cuda);
  CHECK(terse::cuda::devices().size() == 2);
  const auto pairs = make_pairs();
  const auto scores = reranker.score(pairs);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    CHECK(reranker.score({&pairs[i], 1})[0] == scores[i]);
  }
}

TEST_CASE("a device without memory gives an Error and can be used again") {
  emu::Options options = emu::options();
  options.device_count = 2;
  const emu::ScopedOptions scoped(options);
  const TemporaryFolder temporary;
  TinyDecoder("gemma").write(temporary.path());
  const auto reranker = terse::Reranker::load(temporary.path(), on(Device::cuda));
  const auto pairs = make_pairs();
  {
    options.memory_bytes = 1 << 12;
    const emu::ScopedOptions full(options);
    CHECK(error_class_of([&] { reranker.score(pairs); }) == "device");
    CHECK(error_class_of([&] { terse::Reranker::load(temporary.path(), on(Device::cuda)); }) ==
          "device");
  }
  CHECK(reranker.score(pairs).size() == pairs.size());
}
