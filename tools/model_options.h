// The options that choose and load a model, and the loading itself: its definitions are compiled
// once, in model_options.cpp, because every model's forward pass hangs on them.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "command.h"
#include "terse/device.h"
#include "terse/dtype.h"
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
  // op_counter: told of every forward pass; null: nobody is.
  terse::Reranker load_reranker(terse::OpCounter* op_counter = nullptr) const;
  terse::Embedder load_embedder() const;

  // Whether the model is an embedder; reads its config alone.
  bool is_embedder() const;

 private:
  bool device_given_ = false;  // on the command line
};

// What --dtype calls a type of products; results say it so too.
const char* products_name(terse::DType dtype);

}  // namespace terse_tools
