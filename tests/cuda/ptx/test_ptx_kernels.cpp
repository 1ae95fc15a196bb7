// Every shipped kernel, emulated from its source and interpreted from its PTX, agrees: bit for bit
// where no multiply and add can be fused and nothing is approximate, else within the tolerance of
// the type. And what its threads ask of global memory is what its header says, each tensor once.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <iostream>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "cuda_test.h"
#include "launch_ptx.h"
#include "terse/ops/cuda.h"

using namespace terse::cuda;
using terse::bf16;
using terse::DType;
using terse::f16;
using terse::cuda_test::DeviceBuffer;
using terse::cuda_test::PtxLaunches;

namespace {

std::vector<float> random_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}
template <class T>
T stored(float value) {
  if constexpr (std::is_same_v<T, bf16>) return terse::to_bf16(value);
  if constexpr (std::is_same_v<T, f16>) return terse::to_f16(value);
  if constexpr (std::is_same_v<T, float>) return value;
}
float value_of(float value) { return value; }
template <class T>
float value_of(T value) {
  return terse::to_f32(value);
}

// Device memory of random values in storage type T.
template <class T>
DeviceBuffer<T> random_buffer(std::size_t count, unsigned seed) {
  std::vector<T> values;
  for (const float value : random_values(count, seed)) values.push_back(stored<T>(value));
  return DeviceBuffer<T>(values);
}

template <class T>
constexpr DType dtype_of() {
  return std::is_same_v<T, bf16> ? DType::bf16 : std::is_same_v<T, f16> ? DType::f16 : DType::f32;
}
template <class T>
std::string type_name() {
  return std::is_same_v<T, bf16> ? "bf16" : std::is_same_v<T, f16> ? "f16" : "f32";
}
// Of a difference, relative to 1 + |x|: what a fused multiply-add and two ulps of an approximation
// move a float by, and beyond it one rounding of the storage type to the other side.
template <class T>
constexpr double tolerance_of() {
  return std::is_same_v<T, bf16> ? 1e-2 : std::is_same_v<T, f16> ? 2e-3 : 1e-5;
}
constexpr double kBits = 0;

struct Bytes {
  std::uint64_t least = 0;
  std::uint64_t more = 0;  // that indices and descriptions of tiles may add
};

// Runs add(queue, out) both ways on `count` elements of Out.
template <class Out, class Add>
void check_agreement(const std::string& label, std::size_t count, double tolerance, Bytes bytes,
                     const Add& add) {
  const auto run = [&] {
    const DeviceBuffer<Out> out(std::vector<Out>(count, Out{}));
    Queue queue(0);
    add(queue, out.get());
    queue.wait();
    return out.values();
  };
  const std::vector<Out> emulated = run();
  const terse::ptx::Work before = terse::ptx::work_done();
  const PtxLaunches launches;
  const std::vector<Out> interpreted = run();
  const terse::ptx::Work after = terse::ptx::work_done();
  CAPTURE(label);
  double worst = 0;
  std::size_t nonzero = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto a = static_cast<double>(value_of(emulated[i]));
    const auto b = static_cast<double>(value_of(interpreted[i]));
    const double difference = a == b ? 0 : std::fabs(a - b) / (1 + std::fabs(a));
    if (!(difference <= worst)) worst = difference;
    nonzero += a != 0;
  }
  CHECK(worst <= tolerance);
  CHECK(nonzero > count / 8);  // the padding of heads is zero
  const std::uint64_t asked = after.global_bytes - before.global_bytes;
  CHECK(asked >= bytes.least);
  CHECK(asked <= bytes.least + bytes.more);
  std::cout << label << ": " << after.instructions - before.instructions << " instructions, "
            << asked << " bytes, " << after.flops - before.flops << " flops, difference " << worst
            << "\n";
}

constexpr int kRows = 3;

template <class T>
void check_embed(int width) {
  const auto size = static_cast<std::size_t>(width);
  const auto word = random_buffer<T>(10 * size, 1);
  const auto type = random_buffer<T>(size, 2);
  const auto position = random_buffer<T>(8 * size, 3);
  const auto weight = random_buffer<float>(size, 4);
  const auto bias = random_buffer<float>(size, 5);
  const DeviceBuffer<std::int32_t> ids(std::vector<std::int32_t>{7, 0, 9});
  const DeviceBuffer<std::int32_t> positions(std::vector<std::int32_t>{2, 3, 0});
  const DeviceBuffer<float> residual(kRows * size);
  const std::string label = "embed " + type_name<T>() + " width " + std::to_string(width);
  EmbedStep step;
  step.word = {word.get(), ids.get(), static_cast<std::int64_t>(dtype_of<T>())};
  step.token_type = {type.get(), nullptr, static_cast<std::int64_t>(dtype_of<T>())};
  step.position = {position.get(), positions.get(), static_cast<std::int64_t>(dtype_of<T>())};
  step.residual = residual.get();
  step.rows = kRows;
  step.width = width;
  step.scale = 0.5F;
  step.type = static_cast<std::int32_t>(dtype_of<T>());
  const std::uint64_t elements = kRows * size;
  // Two indices of each thread's turn at a row.
  const std::uint64_t indices = kRows * 128 * 8;
  check_agreement<T>(label + ", no norm", elements, kBits,
                     {elements * (4 * sizeof(T) + 4), indices}, [&](Queue& queue, T* out) {
                       EmbedStep given = step;
                       given.out = out;
                       queue.add(given);
                     });
  step.norm = {weight.get(), bias.get(), 1e-5F, 1};
  check_agreement<T>(label + ", layer norm", elements, tolerance_of<T>(),
                     {elements * (4 * sizeof(T) + 12), indices}, [&](Queue& queue, T* out) {
                       EmbedStep given = step;
                       given.out = out;
                       queue.add(given);
                     });
}

template <class T>
void check_add_norm(int width) {
  const auto size = static_cast<std::size_t>(width);
  const std::uint64_t elements = kRows * size;
  const auto product = random_buffer<float>(elements, 1);
  const auto residual = random_buffer<float>(elements, 2);
  const auto bias = random_buffer<float>(size, 3);
  const auto weight = random_buffer<float>(size, 4);
  const DeviceBuffer<float> written(elements);
  const std::string label = "add_norm " + type_name<T>() + " width " + std::to_string(width);
  AddNormStep step;
  step.product = product.get();
  step.bias = bias.get();
  step.residual = residual.get();
  step.written_residual = written.get();
  step.rows = kRows;
  step.width = width;
  step.type = static_cast<std::int32_t>(dtype_of<T>());
  const auto run = [&](Queue& queue, T* out) {
    AddNormStep given = step;
    given.out = out;
    queue.add(given);
  };
  // Product, bias and residual read, residual and operand written; factor 1 fuses exactly.
  check_agreement<T>(label + ", no norm", elements, kBits, {elements * (16 + sizeof(T)), 0}, run);
  step.next_norm = {weight.get(), nullptr, 1e-6F, 3};
  check_agreement<T>(label + ", rms norm", elements, tolerance_of<T>(),
                     {elements * (20 + sizeof(T)), 0}, run);
  step.sum_norm = {weight.get(), bias.get(), 1e-5F, 1};
  step.next_norm = {};
  check_agreement<T>(label + ", layer norm", elements, tolerance_of<T>(),
                     {elements * (24 + sizeof(T)), 0}, run);
}

template <class T>
void check_elementwise(int columns) {
  const auto size = static_cast<std::size_t>(columns);
  const std::uint64_t elements = kRows * size;
  const auto product = random_buffer<T>(2 * elements, 1);
  const auto activated = random_buffer<T>(elements, 2);
  const auto bias = random_buffer<float>(2 * size, 3);
  const std::string suffix = " " + type_name<T>() + " columns " + std::to_string(columns);
  for (const int activation : {4, 1, 2, 3, 5}) {
    // relu only adds and compares
    const double tolerance = activation == 4 ? kBits : tolerance_of<T>();
    ActivateStep step;
    step.product = activated.get();
    step.bias = bias.get();
    step.rows = kRows;
    step.columns = columns;
    step.activation = activation;
    step.type = static_cast<std::int64_t>(dtype_of<T>());
    check_agreement<T>("activation " + std::to_string(activation) + suffix, elements, tolerance,
                       {elements * (2 * sizeof(T) + 4), 0}, [&](Queue& queue, T* out) {
                         ActivateStep given = step;
                         given.out = out;
                         queue.add(given);
                       });
    GateStep gate;
    gate.product = product.get();
    gate.bias = bias.get();
    gate.rows = kRows;
    gate.columns = columns;
    gate.activation = activation;
    gate.type = static_cast<std::int64_t>(dtype_of<T>());
    check_agreement<T>("gated " + std::to_string(activation) + suffix, elements, tolerance,
                       {elements * (3 * sizeof(T) + 8), 0}, [&](Queue& queue, T* out) {
                         GateStep given = gate;
                         given.out = out;
                         queue.add(given);
                       });
  }
}

template <class T>
void check_turn_heads(int head_dim) {
  constexpr int kHeads = 4;
  constexpr int kKvHeads = 2;
  const int width = (kHeads + 2 * kKvHeads) * head_dim;
  const int padded = padded_head_dim(head_dim);
  const auto product = random_buffer<float>(static_cast<std::size_t>(kRows * width), 1);
  const auto bias = random_buffer<float>(static_cast<std::size_t>(width), 2);
  const auto cos = random_buffer<float>(static_cast<std::size_t>(8 * head_dim / 2), 3);
  const auto sin = random_buffer<float>(static_cast<std::size_t>(8 * head_dim / 2), 4);
  const DeviceBuffer<std::int32_t> positions(std::vector<std::int32_t>{0, 5, 7});
  TurnHeadsStep step;
  step.product = product.get();
  step.bias = bias.get();
  step.rows = kRows;
  step.heads = kHeads;
  step.kv_heads = kKvHeads;
  step.head_dim = head_dim;
  step.padded_dim = padded;
  step.query_scale = 0.3F;
  step.type = static_cast<std::int64_t>(dtype_of<T>());
  const auto outputs = static_cast<std::size_t>(kRows * (kHeads + 2 * kKvHeads) * padded);
  const auto run = [&](Queue& queue, T* out) {
    TurnHeadsStep given = step;
    given.out = out;
    queue.add(given);
  };
  const std::uint64_t elements = static_cast<std::uint64_t>(kRows * width);
  const std::string label =
      "turn_heads " + type_name<T>() + " head size " + std::to_string(head_dim);
  check_agreement<T>(label, outputs, kBits, {elements * 8 + outputs * sizeof(T), 0}, run);
  step.cos = cos.get();
  step.sin = sin.get();
  step.positions = positions.get();
  const std::uint64_t rotated =
      static_cast<std::uint64_t>(kRows * (kHeads + kKvHeads) * head_dim) * 4;
  // Each pair reads its row's position.
  check_agreement<T>(label + ", rotated", outputs, tolerance_of<T>(),
                     {elements * 8 + outputs * sizeof(T) + rotated, rotated}, run);
}

// Rows of the longer of two sequences. ThreadSanitizer makes each thread of each block a hundred
// times dearer.
#ifdef EMU_TSAN
constexpr std::int32_t kLonger = 20;
#else
constexpr std::int32_t kLonger = 40;
#endif

// Two sequences, the second of 9 rows, groups of two heads that share a tile; mean_rows as for
// tile_rows().
template <class T>
void check_attention(int head_dim, int num_keys, bool causal, float softcap, int mean_rows = 0) {
  constexpr int kTokens = kLonger + 9;
  constexpr int kHeads = 4;
  constexpr int kKvHeads = 2;
  const std::int32_t most = tile_rows(dtype_of<T>(), head_dim, mean_rows);
  const int positions = most / 2;
  std::vector<QueryTile> tiles;
  std::uint64_t rows = 0;
  std::uint64_t keys = 0;
  const std::vector<KeySpan> spans = {{0, kLonger, 0, 0, 0, {}}, {kLonger, 9, 0, 0, 0, {}}};
  for (std::int32_t sequence = 0; sequence < 2; ++sequence) {
    const KeySpan& span = spans[static_cast<std::size_t>(sequence)];
    for (std::int32_t first = 0; first < span.own_length; first += positions) {
      const std::int32_t count = std::min(positions, span.own_length - first);
      tiles.push_back({sequence, span.own_begin + first, count, 0});
      rows += static_cast<std::uint64_t>(count) * 2;
      // Whole blocks of keys, up to the one that holds the tile's last position.
      const std::int32_t seen =
          causal ? (first + count - 1) / num_keys * num_keys + num_keys : span.own_length;
      keys += static_cast<std::uint64_t>(std::min(seen, span.own_length));
    }
  }
  const DeviceBuffer<QueryTile> device_tiles(tiles);
  const DeviceBuffer<KeySpan> device_spans(spans);
  const auto dim = static_cast<std::size_t>(head_dim);
  const std::size_t width = (kHeads + 2 * kKvHeads) * dim;
  const auto projected = random_buffer<T>(kTokens * width, 1);
  AttendStep step;
  step.query = projected.get();
  step.key = projected.get() + kHeads * dim;
  step.value = projected.get() + (kHeads + kKvHeads) * dim;
  step.tiles = device_tiles.get();
  step.sequences = device_spans.get();
  step.num_tiles = static_cast<std::int32_t>(tiles.size());
  step.row_step = static_cast<std::int32_t>(width);
  step.heads = kHeads;
  step.kv_heads = kKvHeads;
  step.head_dim = head_dim;
  step.padded_dim = head_dim;
  step.causal = causal ? 1 : 0;
  step.softcap = softcap;
  step.score_scale = 0.5F;
  step.packed = 2;
  step.tile_rows = most;
  step.type = static_cast<std::int32_t>(dtype_of<T>());
  const std::uint64_t blocks = tiles.size() * kKvHeads;
  // Of each key head: a tile's queries in and out, and its keys and values once.
  const std::uint64_t bytes = kKvHeads * (2 * rows + 2 * keys) * dim * sizeof(T);
  check_agreement<T>("attention " + type_name<T>() + " head size " + std::to_string(head_dim) +
                         ", tiles of " + std::to_string(most) + ", blocks of " +
                         std::to_string(num_keys) + (causal ? ", causal" : "") +
                         (softcap > 0 ? ", soft-cap" : ""),
                     kTokens * kHeads * dim, tolerance_of<T>(), {bytes, blocks * 128 * 64},
                     [&](Queue& queue, T* out) {
                       AttendStep given = step;
                       given.out = out;
                       queue.add(given);
                     });
}

void check_mean_rows(int width) {
  const auto size = static_cast<std::size_t>(width);
  const auto x = random_buffer<float>(9 * size, 1);
  const DeviceBuffer<std::int32_t> spans(std::vector<std::int32_t>{0, 1, 1, 4, 4, 9});
  check_agreement<float>("mean_rows width " + std::to_string(width), 3 * size, kBits,
                         {12 * size * 4, 3 * 128 * 8}, [&](Queue& queue, float* out) {
                           MeanRowsStep step;
                           step.x = x.get();
                           step.spans = spans.get();
                           step.out = out;
                           step.rows = 3;
                           step.width = width;
                           queue.add(step);
                         });
}

void check_finish_head(int columns, int kept) {
  const auto size = static_cast<std::size_t>(columns);
  const auto product = random_buffer<float>(kRows * size, 1);
  const auto bias = random_buffer<float>(size, 2);
  FinishHeadStep step;
  step.product = product.get();
  step.bias = bias.get();
  step.rows = kRows;
  step.columns = columns;
  step.kept = kept;
  const auto run = [&](Queue& queue, float* out) {
    FinishHeadStep given = step;
    given.out = out;
    queue.add(given);
  };
  const auto outputs = static_cast<std::size_t>(kRows * kept);
  const std::string label = "finish_head columns " + std::to_string(columns);
  check_agreement<float>(label, outputs, kBits, {outputs * 12, 0}, run);
  step.activation = 5;
  step.softcap = 2;
  step.l2_normalize = 1;
  check_agreement<float>(label + ", all of it", outputs, tolerance_of<float>(), {outputs * 12, 0},
                         run);
}

template <class T>
void check_rows_of() {
  for (const int width : {140, 37}) {
    check_embed<T>(width);
    check_add_norm<T>(width);
  }
  for (const int columns : {24, 13}) check_elementwise<T>(columns);
  for (const int head_dim : {32, 6}) check_turn_heads<T>(head_dim);
}

}  // namespace

#ifdef EMU_TSAN

// Races only: one storage type of each kernel, whose others differ in conversions alone.
TEST_CASE("no race in interpreted kernels") {
  check_embed<bf16>(140);
  check_add_norm<bf16>(140);
  check_turn_heads<bf16>(32);
  check_mean_rows(64);
  check_finish_head(24, 16);
  check_attention<float>(64, 32, true, 0);
  check_attention<bf16>(64, 64, false, 0);
  check_attention<f16>(128, 64, true, 0);
}

#else

TEST_CASE("kernels of rows and elements") {
  check_rows_of<float>();
  check_rows_of<bf16>();
  check_rows_of<f16>();
  for (const int width : {64, 33}) check_mean_rows(width);
  check_finish_head(24, 16);
  check_finish_head(7, 7);
}

TEST_CASE("attention") {
  for (const int head_dim : {32, 64, 128, 256}) {
    check_attention<float>(head_dim, head_dim == 256 ? 16 : 32, false, 0);
    check_attention<bf16>(head_dim, head_dim == 256 ? 32 : 64, false, 0);
    check_attention<f16>(head_dim, head_dim == 256 ? 32 : 64, true, 0);
  }
  for (const int head_dim : {32, 64}) {
    check_attention<bf16>(head_dim, 64, true, 0, 256);
    check_attention<f16>(head_dim, 64, false, 0, 256);
  }
  check_attention<float>(64, 32, true, 3);
  check_attention<bf16>(64, 64, true, 3);
  // A device whose blocks have no more than 48 KiB.
  emu::Options small = emu::options();
  small.smem_optin_bytes = 48 << 10;
  const emu::ScopedOptions scoped(small);
  check_attention<bf16>(256, 16, true, 0);
  check_attention<f16>(256, 16, false, 0);
}

TEST_CASE("no kernel of the PTX was left out") {
  for (const auto& [name, program] : PtxLaunches::module().programs()) {
    CAPTURE(name);
    CHECK(PtxLaunches::module().launched().contains(name));
  }
}

#endif
