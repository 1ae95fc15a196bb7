#include "model_options.h"

#include <string>

#include "interrupt.h"
#include "terse/cpu.h"
#include "terse/dtype.h"
#include "terse/error.h"
#include "terse/models/registry.h"

namespace terse_tools {

namespace {

constexpr Choice<Device> kDevices[] = {
    {"auto", Device::automatic}, {"cpu", Device::cpu}, {"cuda", Device::cuda}};

constexpr Choice<std::optional<terse::DType>> kDTypes[] = {{"auto", std::nullopt},
                                                           {"f32", terse::DType::f32},
                                                           {"bf16", terse::DType::bf16},
                                                           {"f16", terse::DType::f16},
                                                           {"int8", terse::DType::i8}};

constexpr Choice<std::optional<terse::Isa>> kIsas[] = {{"auto", std::nullopt},
                                                       {"reference", terse::Isa::reference},
                                                       {"avx2", terse::Isa::avx2},
                                                       {"avx512", terse::Isa::avx512},
                                                       {"amx", terse::Isa::amx}};

}  // namespace

const char* products_name(terse::DType dtype) {
  for (const auto& choice : kDTypes) {
    if (choice.value == dtype) return choice.name;
  }
  return terse::dtype_name(dtype);
}

void ModelOptions::add(CLI::App& app) {
  app.add_option("-m,--model", path, "Model folder as published")->required();
  app.add_option("--threads", load.threads, "Threads [0: all cores this process may use]")
      ->check(CLI::Range(0, 1024));
  add_choice(app, "--device", device, kDevices, "Where to compute [auto]");
  add_choice(app, "--dtype", load.dtype, kDTypes,
             "Type of products [auto: f32, the only one that keeps the reference's scores]");
  add_choice(app, "--isa", load.isa, kIsas, "Instruction set [auto: the best of this machine]");
  app.add_option("--batch-tokens", load.batch_tokens,
                 "Tokens computed together, at most [0: fits the caches]")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 31));
}

void ModelOptions::check_device() const {
  terse::check(device != Device::cuda, terse::ErrorClass::device,
               "cuda: this program was built without it");
}

terse::Reranker ModelOptions::load_reranker() const {
  check_device();
  auto reranker = terse::Reranker::load(path, load);
  note_signals();
  return reranker;
}

terse::Embedder ModelOptions::load_embedder() const {
  check_device();
  auto embedder = terse::Embedder::load(path, load);
  note_signals();
  return embedder;
}

bool ModelOptions::is_embedder() const {
  return terse::model_role(path) == terse::ModelRole::embedder;
}

}  // namespace terse_tools
