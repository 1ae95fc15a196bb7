// The op table: what a forward pass is made of. Models call these dozen ops and nothing else, so a
// device or an instruction set is one file that fills one table, and no model knows which it runs
// on.
//
// Three kinds of activation:
//   residual   the residual stream, (rows, width), row-major in the backend's accumulation type
//              (f32; f64 in the judging backend)
//   operand    what a matrix product reads, (rows, width) in whatever layout and type the backend
//              multiplies fastest (f32, bf16, int8 with a scale per row, from that row alone)
//   attention inputs   queries, keys and values as the backend's attention wants them
// Models hold the latter two as opaque handles. An op may fuse whatever lies inside it; its result
// is defined by ops/reference.h.
//
// Bit rule: the arithmetic of a row never depends on how many rows come with it, in which order, or
// on the number of threads. K is walked in one fixed order, never split across workers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "terse/batch.h"
#include "terse/cpu.h"
#include "terse/device.h"
#include "terse/dtype.h"
#include "terse/ops/arena.h"
#include "terse/tensor.h"

namespace terse {

struct Backend;

// Something a backend prepared at load: a weight in its walking order, a vector, a table. Only the
// backend that made it looks inside.
using Handle = std::shared_ptr<const void>;

// --- weights -------------------------------------------------------------------------------------

// One weight of a linear layer as the checkpoint holds it. The views stay valid while owner lives.
struct LinearPart {
  TensorView weight;  // (out_features, in_features)
  TensorView bias;    // (out_features), or data == nullptr
  Handle owner;
  // Told of bytes of the weight that were read for good, so that a mapped file's pages leave memory
  // while the weight is converted, not only after; they stay valid. May be empty.
  std::function<void(const void* data, std::size_t bytes)> release = {};
};

enum class LinearKind : std::uint8_t {
  plain,  // one part
  qkv,    // query, key and value rows, stacked: three parts, or one that holds them all
  gated,  // two parts: gate and up, of one shape; interleaved as the backend likes
  head,   // one part, read by `head` only: small and sensitive, kept at full precision
};

// y = x W^T + b, prepared once for a backend.
struct Linear {
  LinearKind kind = LinearKind::plain;
  DType compute = DType::f32;  // type of the operand it multiplies
  std::int64_t in_features = 0;
  std::int64_t out_features = 0;  // of the product: the stacked rows; of gated: of one part
  Handle handle;
};

// A linear layer that a packed file holds in panels (ops/panels.h), its parts stacked as kind says.
// The views stay valid while owner lives.
struct PackedLinear {
  LinearKind kind = LinearKind::plain;
  DType dtype = DType::f32;  // of the operand it multiplies
  std::int64_t in_features = 0;
  std::vector<std::int64_t> rows;  // out_features of each part
  TensorView panels;               // panel_shape()
  // (panels * 16) in the order of panels, or data == nullptr:
  TensorView bias;    // f32
  TensorView scales;  // of int8: f32
  TensorView sums;    // of int8: i32, of each column's elements
  Handle owner;
};

enum class NormKind : std::uint8_t {
  layer,         // (x - mean) / sqrt(var + eps) * weight + bias, biased variance
  rms,           // x / sqrt(mean(x^2) + eps) * weight            (Llama)
  rms_plus_one,  // x / sqrt(mean(x^2) + eps) * (1 + weight)      (Gemma)
};

struct Norm {
  NormKind kind = NormKind::layer;
  float eps = 0;
  std::int64_t width = 0;
  Handle weight;  // (width)
  Handle bias;    // (width), layer norm only
};

// An embedding table, (rows, width): gathered from where it lies (the mapped file), never copied
// whole unless the device demands it.
struct Table {
  std::int64_t rows = 0;
  std::int64_t width = 0;
  Handle handle;
};

// cos and sin of position * theta^(-2k/head_dim) for positions 0 .. length - 1, k < head_dim / 2.
struct RotaryTable {
  std::int64_t length = 0;
  std::int64_t head_dim = 0;
  Handle handle;
};

// --- activations ---------------------------------------------------------------------------------

struct Residual {
  void* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t width = 0;
};

struct Operand {
  void* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t width = 0;
  DType dtype = DType::f32;  // as the linear that will read it wants; of attention: sensitive
};

// Geometry of attention: heads x head_dim need not be the hidden size; query heads
// g * (heads / kv_heads) .. share key head g.
struct AttentionShape {
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
};

struct AttentionInputs {
  void* data = nullptr;
  std::int64_t query_rows = 0;
  std::int64_t key_rows = 0;
  AttentionShape shape;
};

// --- parameters of ops ---------------------------------------------------------------------------

enum class Activation : std::uint8_t { none, gelu_erf, gelu_tanh, silu, relu, tanh };

// Who attends to whom. Inside a sequence (its prefix's rows counted first) key j is seen by query i
// if it passes every test that applies: causal: j <= i; window > 0: i - j < window, and without
// causal also j - i < window. softcap > 0: scores become softcap * tanh(score / softcap) before the
// softmax. A row that sees no key gives zeros.
struct AttentionRule {
  bool causal = false;
  std::int32_t window = 0;
  float softcap = 0;
};

// x = word[id] + position[p] + type[t] (tables without rows left out), times scale, then norm.
struct EmbedSpec {
  const Table* word = nullptr;
  const Table* position = nullptr;
  const Table* type = nullptr;
  double scale = 1;
  const Norm* norm = nullptr;
};

struct ProjectSpec {
  double query_scale = 1;                   // 1 / sqrt(head_dim), or what the model says
  const RotaryTable* rotary = nullptr;      // rotates queries and keys by their row's position
  const RowSelection* selection = nullptr;  // rows that get queries; all if null
};

// y = x W^T + b;  y = product_norm(y);  residual += factor * y;  residual = sum_norm(residual);
// out = next_norm(residual). Each norm is left out if null; a null next_norm copies.
struct AddSpec {
  double factor = 1;
  const Norm* product_norm = nullptr;  // Gemma 2
  const Norm* sum_norm = nullptr;      // BERT
  const Norm* next_norm = nullptr;     // pre-norm models: the norm of the block that follows
};

// Vectors or scores of some rows: y = x; norm; y = activation(dense y); y = out y (its activation);
// keep the first truncate columns; softcap * tanh(y / softcap); divide by max(|y|_2, 1e-12).
struct HeadSpec {
  const Norm* norm = nullptr;
  const Linear* dense = nullptr;
  Activation dense_activation = Activation::none;
  const Linear* out = nullptr;
  Activation out_activation = Activation::none;
  std::int64_t truncate = 0;  // 0: all columns
  float softcap = 0;          // 0: none
  bool l2_normalize = false;
};

// --- the table -----------------------------------------------------------------------------------

// Everything one forward pass needs beside weights: its backend, its memory, its share of the
// cores. Used by one forward pass at a time.
// What a model keeps from pass to pass in a Context, beyond the lists there.
struct PassMemory {
  virtual ~PassMemory() = default;
};

struct Context {
  const Backend* backend = nullptr;
  int threads = 1;  // workers that share each op
  Arena arena;      // activations
  Scratch scratch;  // per-worker temporaries of ops
  // Of the model, which keeps their memory from pass to pass here.
  Batch batch;
  RowSelection selection;
  std::vector<RowSpan> spans;
  std::vector<double> scores;
  std::shared_ptr<PassMemory> memory = nullptr;
  std::uint64_t rows = 0;  // of batches embedded so far
  // Rows that activations have room for whatever a batch has, so that the arena is made once; 0: as
  // many as the batch has.
  std::int64_t max_rows = 0;
  // What a device keeps for one pass at a time (Backend::make_state): a stream, staging memory.
  std::shared_ptr<void> state = nullptr;
};

// One slot per op. Rows are counted by the handles; a backend checks nothing that the layers have
// already checked at load. Ops run when called, in order (a device: stream order).
struct Backend {
  const char* name = "";
  Isa isa = Isa::reference;
  DType compute = DType::f32;    // type of operands and prepared weights
  DType sensitive = DType::f32;  // the same for the parts that int8 would hurt (the last
                                 // layer, attention and what it writes); else the same
  Device device = Device::cpu;

  // What a device needs around its ops; the CPU leaves all of it as it is.
  std::int64_t group_tokens = 0;  // of a packed group, at most; 0: what fits a core's caches
  int lanes = 0;                  // groups under way at once; 0: one for each thread
  // Of the groups of about equal size that a core's caches want. Fewer where products are fast
  // beside memory; of rows wider than 1,024, whose weights are what has to be read, 2,048.
  std::int64_t even_tokens = 2048;
  // The state of a lane's context, for passes of at most max_rows rows (more make it grow).
  std::shared_ptr<void> (*make_state)(int lane, std::int64_t max_rows) = nullptr;
  // attention_bytes of any batch of that many tokens, where it does not depend on more.
  std::size_t (*attention_room)(std::int64_t tokens, const AttentionShape& shape) = nullptr;
  // Memory for activations of passes with that state; state null: for those of every lane.
  std::shared_ptr<void> (*allocate)(void* state, std::size_t bytes) = nullptr;
  // Returns when all ops that were called with this context are done.
  void (*finish)(Context&) = nullptr;

  // Load time. Threads may call these at once. Weight types: f64, f32, f16, bf16 at any address;
  // dtype is compute or sensitive.
  Linear (*prepare_linear)(LinearKind kind, std::span<const LinearPart> parts,
                           DType dtype) = nullptr;
  // The same of a weight in panels, used where it lies. Null in a backend that lays weights out
  // otherwise: it prepares what unpack_linear() makes of them.
  Linear (*adopt_linear)(const PackedLinear& packed) = nullptr;
  Handle (*prepare_vector)(const TensorView& vector) = nullptr;
  Table (*prepare_table)(const TensorView& table, Handle owner) = nullptr;
  RotaryTable (*prepare_rotary)(double theta, std::int64_t head_dim, std::int64_t length) = nullptr;

  // Bytes that an activation takes in the arena.
  std::size_t (*residual_bytes)(std::int64_t rows, std::int64_t width) = nullptr;
  // dtype: compute or sensitive
  std::size_t (*operand_bytes)(std::int64_t rows, std::int64_t width, DType dtype) = nullptr;
  std::size_t (*attention_bytes)(const Batch& batch, const AttentionShape& shape) = nullptr;

  // residual x (tokens, hidden) and, if out is given, the operand next_norm(x).
  void (*embed)(Context&, const Batch&, const EmbedSpec&, Residual x, const Norm* next_norm,
                Operand* out) = nullptr;
  // out = norm(x); norm null: a copy in the operand's type.
  void (*norm)(Context&, const Residual& x, const Norm* norm, Operand out) = nullptr;
  // Queries (scaled, rotated), keys (rotated) and values from one product with stacked weights.
  void (*project_qkv)(Context&, const Batch&, const Operand& x, const Linear& qkv,
                      const ProjectSpec&, AttentionInputs out) = nullptr;
  // out (query rows, heads * head_dim), of the sensitive type: a row is complete, and its int8
  // scale known, only when the last head is. A product in another type converts the rows it reads.
  void (*attention)(Context&, const Batch&, const AttentionInputs&, const AttentionRule&,
                    const RowSelection* selection, Operand out) = nullptr;
  // project_qkv and attention in one, for the rows of spec.selection alone and where nothing
  // rotates or hides a key: the rule is AttentionRule{}, no sequence has a prefix. `queries` is
  // memory as for project_qkv, x and qkv are of the sensitive type. Null in a backend that has no
  // shorter way than those two; see attends_selected() in ops/panels.h.
  void (*attend_selected)(Context&, const Batch&, const Operand& x, const Linear& qkv,
                          const ProjectSpec& spec, AttentionInputs queries, Operand out) = nullptr;
  // x (rows, out_features) is read and written; out may be null.
  void (*linear_add)(Context&, const Operand& in, const Linear&, const AddSpec&, Residual x,
                     Operand* out) = nullptr;
  // out (rows, out_features) = activation(in W^T + b).
  void (*linear_activation)(Context&, const Operand& in, const Linear&, Activation,
                            Operand out) = nullptr;
  // out (rows, out_features) = activation(in G^T) * (in U^T).
  void (*linear_gated)(Context&, const Operand& in, const Linear& gate_up, Activation,
                       Operand out) = nullptr;
  // out[i] = mean of rows [spans[i].begin, spans[i].end) of x, summed in rising order; a span of
  // one row is an exact copy. Selection, token compression and mean pooling. out may not alias x.
  void (*mean_rows)(Context&, const Residual& x, std::span<const RowSpan> spans,
                    Residual out) = nullptr;
  // out (rows, columns of the head) on the host; columns = head_columns(spec, x.width).
  void (*head)(Context&, const Residual& x, const HeadSpec&, std::span<double> out) = nullptr;

  // For traces and checks: zeros, and activations on the host, row-major.
  void (*clear_residual)(Context&, Residual) = nullptr;
  void (*read_residual)(Context&, const Residual&, std::span<double> out) = nullptr;
  void (*read_operand)(Context&, const Operand&, std::span<double> out) = nullptr;
};

// Puts into the table what a backend's struct of ops has under the names of the slots.
template <class Ops>
void fill_ops(Backend& backend) {
  backend.prepare_linear = Ops::prepare_linear;
  backend.prepare_vector = Ops::prepare_vector;
  backend.prepare_table = Ops::prepare_table;
  backend.prepare_rotary = Ops::prepare_rotary;
  backend.residual_bytes = Ops::residual_bytes;
  backend.operand_bytes = Ops::operand_bytes;
  backend.attention_bytes = Ops::attention_bytes;
  backend.embed = Ops::embed;
  backend.norm = Ops::norm;
  backend.project_qkv = Ops::project_qkv;
  backend.attention = Ops::attention;
  backend.linear_add = Ops::linear_add;
  backend.linear_activation = Ops::linear_activation;
  backend.linear_gated = Ops::linear_gated;
  backend.mean_rows = Ops::mean_rows;
  backend.head = Ops::head;
  backend.clear_residual = Ops::clear_residual;
  backend.read_residual = Ops::read_residual;
  backend.read_operand = Ops::read_operand;
}

// Columns of what `head` writes for rows of the given width.
inline std::int64_t head_columns(const HeadSpec& spec, std::int64_t width) {
  std::int64_t columns = width;
  if (spec.dense != nullptr) columns = spec.dense->out_features;
  if (spec.out != nullptr) columns = spec.out->out_features;
  return spec.truncate > 0 && spec.truncate < columns ? spec.truncate : columns;
}

// Memory for activations that passes of every lane may read and write.
inline std::shared_ptr<void> allocate_for_all(const Backend& backend, std::size_t bytes) {
  return backend.allocate != nullptr ? backend.allocate(nullptr, bytes)
                                     : Arena::heap_block(nullptr, bytes);
}

// Activations in the arena of a forward pass.
inline Residual make_residual(Context& context, std::int64_t rows, std::int64_t width) {
  const std::int64_t room = std::max(rows, context.max_rows);
  return {context.arena.take(context.backend->residual_bytes(room, width)), rows, width};
}
// Bytes for an operand of either type.
inline std::size_t operand_room(const Backend& backend, std::int64_t rows, std::int64_t width) {
  return std::max(backend.operand_bytes(rows, width, backend.compute),
                  backend.operand_bytes(rows, width, backend.sensitive));
}
// An operand with room for `rows` rows of either type; as it is, of the sensitive one.
inline Operand make_operand(Context& context, std::int64_t rows, std::int64_t width) {
  const Backend& backend = *context.backend;
  const std::int64_t room = std::max(rows, context.max_rows);
  return {context.arena.take(operand_room(backend, room, width)), rows, width, backend.sensitive};
}
// The type in which layer `index` of `count` multiplies. Nothing after the last layer evens out
// its errors, and pruned to the scored rows it costs little.
inline DType layer_dtype(const Backend& backend, std::int64_t index, std::int64_t count) {
  return index + 1 == count ? backend.sensitive : backend.compute;
}
inline AttentionInputs make_attention_inputs(Context& context, const Batch& batch,
                                             const AttentionShape& shape) {
  const Backend& backend = *context.backend;
  const std::int64_t rows = batch.total_tokens();
  const std::size_t bytes = rows < context.max_rows
                                ? backend.attention_room(context.max_rows, shape)
                                : backend.attention_bytes(batch, shape);
  return {context.arena.take(bytes), rows, rows, shape};
}

}  // namespace terse
