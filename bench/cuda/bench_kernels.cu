// What kernels and products take on a device: every kernel of docs/gpu.md's roofline at its shape
// (64 pairs of 512 tokens through bge-reranker-v2-m3 in bf16), the products beside them, and the
// steps of the teaching ladders. One line each: microseconds, GB/s by the bytes that must move,
// TFLOP/s.
//
//   bench_kernels [PAIRS [LENGTH]]      [64 512]
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <limits>
#include <string>
#include <vector>

#include "ladder.cuh"
#include "terse/ops/cuda.h"

namespace {

using namespace terse::cuda;
using terse::bf16;

constexpr std::int32_t kWidth = 1024;
constexpr std::int32_t kInner = 4096;
constexpr std::int32_t kHeads = 16;
constexpr std::int32_t kHeadDim = kWidth / kHeads;
constexpr auto kType = static_cast<std::int32_t>(terse::DType::bf16);
constexpr auto kFloat = static_cast<std::int32_t>(terse::DType::f32);
// Launches in one graph: its own start counts little then.
constexpr int kRepeats = 10;
constexpr int kRounds = 9;

// Device memory with values of about `scale`, another sequence for each seed.
template <class T>
Memory made_up(std::size_t count, float scale) {
  static std::uint32_t state = 1;
  std::vector<T> values(count);
  for (T& value : values) {
    state = state * 1664525 + 1013904223;  // Numerical Recipes, 7.1
    const float number = (static_cast<float>(state >> 8) / 8388608.0F - 1) * scale;
    if constexpr (std::is_same_v<T, bf16>) value = terse::to_bf16(number);
    if constexpr (std::is_same_v<T, float>) value = number;
  }
  Memory memory(0, count * sizeof(T));
  memory.upload(values.data(), memory.size());
  return memory;
}

template <class T>
Memory copied(const std::vector<T>& values) {
  Memory memory(0, values.size() * sizeof(T));
  memory.upload(values.data(), memory.size());
  return memory;
}

void print(const std::string& name, double seconds, double bytes, double operations) {
  std::printf("%-40s %9.1f us %7.0f GB/s %7.1f TFLOP/s\n", name.c_str(), seconds * 1e6,
              bytes / seconds * 1e-9, operations / seconds * 1e-12);
}

// The median of some replays of a graph of launches.
template <class Step>
void time_step(const std::string& name, const Step& step, double bytes, double operations) {
  Queue queue(0);
  std::vector<double> seconds;
  for (int round = 0; round < kRounds + 3; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kRepeats; ++i) queue.add(step);
    queue.wait();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    if (round >= 3) seconds.push_back(taken.count() / kRepeats);  // before: plans and capture
  }
  std::sort(seconds.begin(), seconds.end());
  print(name, seconds[kRounds / 2], bytes, operations);
}

template <class Step>
void time_rung(const ladder::Rung<Step>& rung, const Step& step, double bytes, double operations) {
  double best = std::numeric_limits<double>::infinity();
  for (int round = 0; round < 3; ++round) {
    const auto start = std::chrono::steady_clock::now();
    rung.launch(rung.kernel, step);
    check(cudaDeviceSynchronize(), rung.name);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    best = std::min(best, taken.count());
  }
  print(rung.name, best, bytes, operations);
}

void run(std::int32_t pairs, std::int32_t length) {
  const std::int32_t rows = pairs * length;
  const auto count = static_cast<std::size_t>(rows);
  const auto elements = static_cast<double>(rows) * kWidth;
  const auto inner = static_cast<double>(rows) * kInner;

  const Memory operand = made_up<bf16>(count * kInner, 1);
  const Memory weights = made_up<bf16>(std::size_t{kInner} * kWidth, 0.03F);
  const Memory vector = made_up<float>(kInner, 0.1F);
  const Memory rounded = made_up<bf16>(kInner, 0.1F);
  const Memory product = made_up<float>(count * 3 * kWidth, 1);
  const Memory residual = made_up<float>(count * kWidth, 1);
  const Memory out(0, count * 2 * kInner * sizeof(bf16));
  const Memory table = made_up<bf16>(std::size_t{8192} * kWidth, 1);
  std::vector<std::int32_t> ids, positions;
  for (std::int32_t row = 0; row < rows; ++row) {
    ids.push_back(static_cast<std::int32_t>(std::int64_t{row} * 7919 % 8192));
    positions.push_back(row % length);
  }
  const Memory device_ids = copied(ids), device_positions = copied(positions);
  const NormStep norm{vector.as<float>(), vector.as<float>(), 1e-5F, 1};

  EmbedStep embed;
  embed.word = {table.data(), device_ids.as<std::int32_t>(), kType};
  embed.token_type = {table.data(), nullptr, kType};
  embed.position = {table.data(), device_positions.as<std::int32_t>(), kType};
  embed.norm = norm;
  embed.residual = residual.as<float>();
  embed.out = out.data();
  embed.rows = rows;
  embed.width = kWidth;
  embed.type = kType;
  time_step("embed", embed, elements * 12, elements * 12);

  AddNormStep add;
  add.product = product.as<float>();
  add.bias = vector.as<float>();
  add.sum_norm = norm;
  add.residual = residual.as<float>();
  add.written_residual = residual.as<float>();
  add.out = out.data();
  add.rows = rows;
  add.width = kWidth;
  add.type = kType;
  time_step("add_norm", add, elements * 14, elements * 20);

  TurnHeadsStep turn;
  turn.product = product.as<float>();
  turn.bias = vector.as<float>();
  turn.out = out.data();
  turn.rows = rows;
  turn.heads = turn.kv_heads = kHeads;
  turn.head_dim = turn.padded_dim = kHeadDim;
  turn.type = kType;
  time_step("turn_heads", turn, elements * 3 * 6, elements * 3 * 4);

  std::vector<KeySpan> spans;
  for (std::int32_t pair = 0; pair < pairs; ++pair) spans.push_back({pair * length, length});
  const Memory device_spans = copied(spans);
  const auto tiles_of = [&](std::int32_t tall) {
    std::vector<QueryTile> tiles;
    for (std::int32_t pair = 0; pair < pairs; ++pair) {
      for (std::int32_t row = 0; row < length; row += tall) {
        tiles.push_back({pair, pair * length + row, std::min(tall, length - row), 0});
      }
    }
    return tiles;
  };
  AttendStep attend;
  attend.query = operand.data();
  attend.key = operand.as<bf16>() + kWidth;
  attend.value = operand.as<bf16>() + 2 * kWidth;
  attend.out = out.data();
  attend.sequences = device_spans.as<KeySpan>();
  attend.row_step = 3 * kWidth;
  attend.heads = attend.kv_heads = kHeads;
  attend.head_dim = attend.padded_dim = kHeadDim;
  attend.type = kType;
  const double attend_bytes = elements * 8;
  const double attend_operations = elements * 4 * length;
  for (const std::int32_t tall : {64, 128}) {
    const std::vector<QueryTile> tiles = tiles_of(tall);
    const Memory device_tiles = copied(tiles);
    attend.tiles = device_tiles.as<QueryTile>();
    attend.num_tiles = static_cast<std::int32_t>(tiles.size());
    attend.tile_rows = tall;
    attend.score_scale = 0.125F;
    time_step("attention_mma, tiles of " + std::to_string(tall), attend, attend_bytes,
              attend_operations);
  }

  ActivateStep activation;
  activation.product = activation.out = operand.data();
  activation.bias = vector.as<float>();
  activation.rows = rows;
  activation.columns = kInner;
  activation.activation = 1;
  activation.type = kType;
  time_step("activation (GELU)", activation, inner * 4, inner * 20);

  GateStep gate;
  const Memory both = made_up<bf16>(count * 2 * kInner, 1);
  gate.product = both.data();
  gate.out = out.data();
  gate.rows = rows;
  gate.columns = kInner;
  gate.activation = 2;
  gate.type = kType;
  time_step("gated", gate, inner * 6, inner * 20);

  struct Product {
    const char* name;
    std::int32_t columns;
    std::int32_t width;
    std::int32_t out_type;
    bool biased;
  };
  for (const Product& shape :
       {Product{"product: query, key, value", 3 * kWidth, kWidth, kType, true},
        Product{"product: attention out", kWidth, kWidth, kFloat, false},
        Product{"product: up", kInner, kWidth, kType, false},
        Product{"product: down", kWidth, kInner, kFloat, false}}) {
    ProductStep step;
    step.x = operand.data();
    step.w = weights.data();
    step.y = out.data();
    step.rows = rows;
    step.columns = shape.columns;
    step.width = shape.width;
    step.type = kType;
    step.out_type = shape.out_type;
    if (shape.biased) {
      step.bias = vector.as<float>();
      step.rounded_bias = rounded.data();
    }
    const double columns = shape.columns, width = shape.width;
    const double out_bytes = columns * (shape.out_type == kFloat ? 4 : 2);
    time_step(shape.name, step, rows * (2 * width + out_bytes) + 2 * columns * width,
              2.0 * rows * columns * width);
  }

  AddNormStep rung = add;
  rung.bias = nullptr;
  rung.next_norm = {};
  for (const auto& step : ladder::kNorm) time_rung(step, rung, elements * 14, elements * 20);
  const std::vector<QueryTile> tiles = tiles_of(64);
  const Memory device_tiles = copied(tiles);
  attend.tiles = device_tiles.as<QueryTile>();
  attend.num_tiles = static_cast<std::int32_t>(tiles.size());
  for (const auto& step : ladder::kAttention) {
    time_rung(step, attend, attend_bytes, attend_operations);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::vector<DeviceProperties> devices = find_devices();
    std::printf("%s\n", devices.front().name.c_str());
    run(argc > 1 ? std::atoi(argv[1]) : 64, argc > 2 ? std::atoi(argv[2]) : 512);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_kernels: %s\n", error.what());
    return 1;
  }
  return 0;
}
