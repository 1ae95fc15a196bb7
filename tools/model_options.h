// The options that choose and load a model, and the loading itself: its definitions are compiled
// once, in model_options.cpp, because every model's forward pass hangs on them.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "command.h"
#include "terse/device.h"
#include "terse/embed.h"
#include "terse/options.h"
#include "terse/rerank.h"

namespace terse_tools {

struct ModelOptions {
  std::string path;
  terse::LoadOptions load;

  void add(CLI::App& app);

  // Loads the model; signals are noted from then on, not obeyed at once. Throws everything the
  // library's load throws; device if the device asked for is not to be had.
  terse::Reranker load_reranker() const;
  terse::Embedder load_embedder() const;

  // Whether the model is an embedder; reads its config alone.
  bool is_embedder() const;

 private:
  bool device_given_ = false;  // on the command line
};

}  // namespace terse_tools
