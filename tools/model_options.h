// The options that choose and load a model, and the loading itself: its definitions are compiled
// once, in model_options.cpp, because every model's forward pass hangs on them.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "command.h"
#include "terse/dtype.h"
#include "terse/embed.h"
#include "terse/options.h"
#include "terse/rerank.h"

namespace terse_tools {

enum class Device { automatic, cpu, cuda };

struct ModelOptions {
  std::string path;
  Device device = Device::automatic;
  terse::LoadOptions load;

  void add(CLI::App& app);

  // Loads the model; signals are noted from then on, not obeyed at once. Throws everything the
  // library's load throws; device if the device asked for is not to be had.
  terse::Reranker load_reranker() const;
  terse::Embedder load_embedder() const;

  // Whether the model is an embedder; reads its config alone.
  bool is_embedder() const;

 private:
  void check_device() const;
};

// What --dtype calls a type of products; results say it so too.
const char* products_name(terse::DType dtype);

}  // namespace terse_tools
