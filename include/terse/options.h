// What a caller may choose when loading a model, and per call or per pair when using it. Anything
// left unset takes the default of the reference class (FlagEmbedding 1.4.0).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "terse/cpu.h"
#include "terse/device.h"
#include "terse/dtype.h"

namespace terse {

class OpCounter;

// Work that causal models are spared without changing a bit of a score. Each can be switched off,
// to measure it or to see that it is so.
struct Savings {
  bool last_row_only = true;  // the last layer runs only for the rows that are scored
  bool share_prefix = true;   // what passages of one query have in common runs once for a group
  bool lazy_layers = true;    // a layer's weights are read when a pass first reaches it
};

// Fixed when a model is loaded.
struct LoadOptions {
  // Type of operands in products: f32, bf16, i8 (f64 and f16: plain loops, to compare). unset: the
  // fastest that keeps the README's promise of accuracy: bf16 where an instruction multiplies it,
  // else f32. f32 is the reference's scores to about 1e-4.
  std::optional<DType> dtype;
  std::optional<Isa> isa;         // unset: the best of this machine; an absent one is refused
  int threads = 0;                // 0: every core this process may use
  std::int64_t batch_tokens = 0;  // tokens of a packed group, at most; 0: chosen from the caches
  std::filesystem::path adapter = {};  // folder of a LoRA adapter to merge, if any
  Savings savings = {};
  OpCounter* op_counter = nullptr;  // told of every pass (ops/op_counter.h); null: nobody is
  // cuda: where it is not to be had, loading throws Error(device).
  Device device = Device::automatic;
};

// An instruction put in front of a text. unset: the model's default; none: the text is left as it
// is.
struct Instruction {
  enum class State : std::uint8_t { unset, none, given };
  State state = State::unset;
  std::string text = {};
  std::string format = "{}{}";  // instruction, then text; a literal backslash-n becomes a newline

  static Instruction of(std::string text) { return {State::given, std::move(text)}; }
};

enum class Truncation : std::uint8_t {
  passage,        // FlagEmbedding: the query on its own, then the end of the passage
  longest_first,  // one call of the tokenizer: always from the longer text
  error,          // nothing is cut: too long is Error(limit)
  chunk,          // a long passage in overlapping chunks; the best chunk's score counts
};

enum class Heads : std::uint8_t { ordinal, own };
enum class Switch : std::uint8_t { automatic, on, off };
enum class Gelu : std::uint8_t { automatic, tanh, erf };

// May differ from pair to pair.
struct ScoreOptions {
  std::optional<std::int64_t> max_length;        // default 512
  std::optional<std::int64_t> query_max_length;  // default max_length * 3 / 4
  Truncation truncation = Truncation::passage;
  bool normalize = false;  // sigmoid of the score, in double
  Instruction query_instruction;
  Instruction passage_instruction;
  std::optional<std::string> prompt;  // decoder rerankers

  // Layer-wise models only; refused elsewhere.
  std::vector<std::int64_t> cutoff_layers;                   // exits; empty: the last layer
  std::optional<std::vector<std::int64_t>> compress_layers;  // default {8}
  std::optional<std::int64_t> compress_ratio;                // default 1: no compression
  std::optional<Heads> heads;                                // default ordinal
  Switch attention_softcap = Switch::automatic;
  Gelu gelu = Gelu::automatic;
};

enum class Pooling : std::uint8_t { automatic, cls, mean, last };
enum class TextKind : std::uint8_t { passage, query };

struct EmbedOptions {
  std::optional<std::int64_t> max_length;  // default 512, or what the folder says
  Instruction query_instruction;           // applied to texts of kind query
  Pooling pooling = Pooling::automatic;
  bool normalize = true;
  std::int64_t truncate_dim = 0;  // 0: all columns
  bool dense = true;
  bool sparse = false;   // bge-m3
  bool colbert = false;  // bge-m3
};

// What a call did. Added to, so that one object may count several calls.
struct CallCounters {
  std::uint64_t tokens = 0;  // of rows
  std::uint64_t rows = 0;    // of the packed batches that were embedded for them; fewer where
                             // passages share the opening of their query
  double tokenize_seconds = 0;
  double forward_seconds = 0;
};

// What a caller may watch and stop. Called from the thread that made the call.
struct CallOptions {
  // After each group of texts: texts done, texts in all.
  std::function<void(std::size_t, std::size_t)> progress = {};
  // Asked between groups; true ends the call with Error(cancelled).
  std::function<bool()> cancel = {};
  CallCounters* counters = nullptr;
};

}  // namespace terse
