#include "model_options.h"

#include <string>

#include "interrupt.h"
#include "terse/cpu.h"
#include "terse/dtype.h"
#include "terse/error.h"
#include "terse/models/registry.h"

namespace terse_tools {

namespace {

constexpr Choice<terse::Device> kDevices[] = {
    {"auto", terse::Device::automatic}, {"cpu", terse::Device::cpu}, {"cuda", terse::Device::cuda}};

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

// Who asked for a choice is told if it fell on the CPU, and why.
void say_device(const terse::ModelInfo& model, bool asked) {
  if (asked && !model.device_note.empty()) {
    print_message("device", "computing on the CPU: " + model.device_note);
  }
}

}  // namespace

const char* products_name(terse::DType dtype) {
  for (const auto& choice : kDTypes) {
    if (choice.value == dtype) return choice.name;
  }
  return terse::dtype_name(dtype);
}

void ModelOptions::add(CLI::App& app) {
  app.add_option("-m,--model", path, "Model folder as published, or a file made by terse pack")
      ->required();
  app.add_option("--threads", load.threads, "Threads [0: all cores this process may use]")
      ->check(CLI::Range(0, 1024));
  add_choice(app, "--device", load.device, kDevices,
             "Where to compute [auto: on a GPU if there is one]")
      ->each([this](const std::string&) { device_given_ = true; });
  add_choice(app, "--dtype", load.dtype, kDTypes,
             "Type of products [auto: bf16 where the processor multiplies it, else f32]");
  add_choice(app, "--isa", load.isa, kIsas, "Instruction set [auto: the best of this machine]");
  app.add_option("--batch-tokens", load.batch_tokens,
                 "Tokens computed together, at most [0: fits the caches]")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 31));
}

terse::Reranker ModelOptions::load_reranker(terse::OpCounter* op_counter) const {
  terse::LoadOptions options = load;
  options.op_counter = op_counter;
  auto reranker = terse::Reranker::load(path, options);
  say_device(reranker.info(), device_given_);
  note_signals();
  return reranker;
}

terse::Embedder ModelOptions::load_embedder() const {
  auto embedder = terse::Embedder::load(path, load);
  say_device(embedder.info(), device_given_);
  note_signals();
  return embedder;
}

bool ModelOptions::is_embedder() const {
  return terse::model_role(path) == terse::ModelRole::embedder;
}

}  // namespace terse_tools
