// terse trace: every intermediate tensor of one text or pair as safetensors, under the checkpoint's
// own module names. For finding the first step at which two implementations part.
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "commands.h"
#include "document_scorer.h"
#include "fields.h"
#include "model_options.h"
#include "terse/safetensors.h"

namespace terse_tools {

namespace {

class TraceCommand {
 public:
  void add_options(CLI::App& app) {
    model_.add(app);
    auto* query = app.add_option("--query", query_, "Query of the pair (rerankers)");
    auto* passage = app.add_option("--passage", passage_, "Passage of the pair (rerankers)");
    query->needs(passage);
    passage->needs(query);
    app.add_option("--text", text_, "The text (embedders)")->excludes(query);
    app.add_option("-o,--output", output_, "Safetensors file to write")->required();
    visit_fields(options_, CommandLineFields(app));
  }

  int run() {
    const std::vector<terse::TraceTensor> tensors = trace();
    std::vector<terse::NamedTensor> entries;
    for (const terse::TraceTensor& tensor : tensors) {
      entries.push_back({tensor.name, {nullptr, terse::DType::f32, tensor.shape}});
    }
    terse::SafeTensorsWriter writer(output_, entries);
    for (const terse::TraceTensor& tensor : tensors) {
      writer.append(std::as_bytes(std::span<const float>(tensor.values)));
    }
    check_interrupted();
    writer.commit();
    print_message("trace", std::to_string(tensors.size()) + " tensors written");
    return kSuccess;
  }

 private:
  std::vector<terse::TraceTensor> trace() const {
    if (!model_.is_embedder()) {
      if (!query_) throw CLI::RequiredError("--query and --passage (the model is a reranker)");
      std::vector<std::string> warnings;
      auto tensors = model_.load_reranker().trace({*query_, *passage_}, options_, &warnings);
      Warnings().print(warnings);
      return tensors;
    }
    if (!text_) throw CLI::RequiredError("--text (the model is an embedder)");
    refuse_reranker_options(options_, "traced embedder");
    for (const auto& [name, instruction] :
         {std::pair("query_instruction", &options_.query_instruction),
          std::pair("passage_instruction", &options_.passage_instruction)}) {
      terse::check(instruction->state == terse::Instruction::State::unset,
                   terse::ErrorClass::unsupported, name,
                   " is set, but a trace is of the text as it is");
    }
    terse::EmbedOptions options;
    options.max_length = options_.max_length;
    return model_.load_embedder().trace({*text_}, options);
  }

  ModelOptions model_;
  std::optional<std::string> query_;
  std::optional<std::string> passage_;
  std::optional<std::string> text_;
  std::string output_;
  terse::ScoreOptions options_;
};

}  // namespace

void add_trace_command(CLI::App& app, Action& action) {
  add_command<TraceCommand>(app, action, "trace",
                            "Write every intermediate tensor of one text or pair");
}

}  // namespace terse_tools
