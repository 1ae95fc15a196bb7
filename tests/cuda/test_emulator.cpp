// The emulator itself: what good kernels compute in every schedule, and that each broken rule of
// CUDA is a Fault that says so. Memory errors and races are in test_faults.cpp.
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "cuda_test.h"
#include "device.cuh"

namespace {

using terse::cuda::klaunch;
using terse::cuda_test::DeviceBuffer;
using terse::cuda_test::for_each_mode;

constexpr unsigned kFull = 0xffffffffU;

std::vector<int> iota(std::size_t count) {
  std::vector<int> values(count);
  std::iota(values.begin(), values.end(), 0);
  return values;
}

// ---- Good kernels

// out (blocks): sums of blockDim.x values each.
__global__ void block_sum(const int* values, int* out) {
  KSHARED(int, partial, 64);
  partial[threadIdx.x] = values[blockIdx.x * blockDim.x + threadIdx.x];
  for (unsigned stride = blockDim.x / 2; stride > 0; stride /= 2) {
    __syncthreads();
    if (threadIdx.x < stride) partial[threadIdx.x] += partial[threadIdx.x + stride];
  }
  if (threadIdx.x == 0) out[blockIdx.x] = partial[0];
}

TEST_CASE("a block sums through shared memory in every schedule") {
  const std::vector<int> values = iota(3 * 64);
  for_each_mode([&] {
    const DeviceBuffer<int> in(values);
    const DeviceBuffer<int> out(3);
    klaunch(block_sum, 3, 64, 0, nullptr, in.get(), out.get());
    const std::vector<int> sums = out.values();
    for (int block = 0; block < 3; ++block) {
      CHECK(sums[static_cast<std::size_t>(block)] == 64 * 64 * block + 63 * 64 / 2);
    }
  });
}

struct WarpResults {
  int index, up, down, exclusive_or, segment;
  unsigned ballot;
  int any, all, sum, least, most;
  double wide;
};

__global__ void warp_functions(WarpResults* out) {
  const int lane = static_cast<int>(threadIdx.x);
  const int value = lane * lane - 100;
  WarpResults& mine = out[lane];
  mine.index = __shfl_sync(kFull, value, 5);
  mine.up = __shfl_up_sync(kFull, value, 3);
  mine.down = __shfl_down_sync(kFull, value, 30U);
  mine.exclusive_or = __shfl_xor_sync(kFull, value, 16);
  mine.segment = __shfl_down_sync(kFull, value, 2, 8);
  mine.ballot = __ballot_sync(kFull, lane % 3 == 0);
  mine.any = __any_sync(kFull, lane == 31);
  mine.all = __all_sync(kFull, lane != 31);
  mine.sum = __reduce_add_sync(kFull, value);
  mine.least = __reduce_min_sync(kFull, value);
  mine.most = __reduce_max_sync(kFull, value);
  mine.wide = __shfl_sync(kFull, 1.5 * lane, 7);
}

TEST_CASE("warp functions follow their definitions") {
  const auto value = [](int lane) { return lane * lane - 100; };
  int sum = 0;
  for (int lane = 0; lane < 32; ++lane) sum += value(lane);
  for_each_mode([&] {
    const DeviceBuffer<WarpResults> out(32);
    klaunch(warp_functions, 1, 32, 0, nullptr, out.get());
    const std::vector<WarpResults> results = out.values();
    for (int lane = 0; lane < 32; ++lane) {
      CAPTURE(lane);
      const WarpResults& mine = results[static_cast<std::size_t>(lane)];
      CHECK(mine.index == value(5));
      CHECK(mine.up == value(lane < 3 ? lane : lane - 3));
      CHECK(mine.down == value(lane < 2 ? lane + 30 : lane));
      CHECK(mine.exclusive_or == value(lane ^ 16));
      CHECK(mine.segment == value(lane % 8 < 6 ? lane + 2 : lane));
      CHECK(mine.ballot == 0x49249249U);
      CHECK(mine.any == 1);
      CHECK(mine.all == 0);
      CHECK(mine.sum == sum);
      CHECK(mine.least == -100);
      CHECK(mine.most == 31 * 31 - 100);
      CHECK(mine.wide == 1.5 * 7);
    }
  });
}

// Each half of the warp works on its own; lanes hand values on through shared memory.
__global__ void halves(int* out) {
  KSHARED(int, box, 32);
  const unsigned lane = threadIdx.x;
  box[lane] = static_cast<int>(lane);
  if (lane < 16) {
    __syncwarp(0x0000ffffU);
    out[lane] = box[15 - lane] + __shfl_xor_sync(0x0000ffffU, 1000, 1);
  } else {
    __syncwarp(0xffff0000U);
    out[lane] = box[47 - lane] + __shfl_xor_sync(0xffff0000U, 2000, 1);
  }
}

TEST_CASE("halves of a warp meet under masks of their own") {
  for_each_mode([&] {
    const DeviceBuffer<int> out(32);
    klaunch(halves, 1, 32, 0, nullptr, out.get());
    const std::vector<int> values = out.values();
    for (int lane = 0; lane < 32; ++lane) {
      CHECK(values[static_cast<std::size_t>(lane)] ==
            (lane < 16 ? 1000 + 15 - lane : 2000 + 47 - lane));
    }
  });
}

// out += the sum of tiles of 64 values, loaded two tiles ahead.
__global__ void pipelined_sum(const int* values, int tiles, int* out) {
  KSHARED_DYN(int, buffer);
  const int thread = static_cast<int>(threadIdx.x);
  const auto load = [&](int tile) {
    if (tile < tiles && thread < 16) {
      terse::cuda::cp_async16(buffer + (tile % 2) * 64 + thread * 4,
                              values + tile * 64 + thread * 4);
    }
    terse::cuda::cp_async_commit();
  };
  load(0);
  int sum = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    load(tile + 1);
    terse::cuda::cp_async_wait<1>();
    __syncthreads();
    sum += buffer[(tile % 2) * 64 + (thread + 1) % 64];
    __syncthreads();
  }
  atomicAdd(out, sum);
}

TEST_CASE("copies behind the threads' back arrive by the wait") {
  const std::vector<int> values = iota(5 * 64);
  for_each_mode([&] {
    const DeviceBuffer<int> in(values);
    const DeviceBuffer<int> out(std::vector<int>{0});
    klaunch(pipelined_sum, 2, 64, 2 * 64 * sizeof(int), nullptr, in.get(), 5, out.get());
    CHECK(out.values()[0] == 2 * (320 * 319 / 2));
  });
}

__global__ void zero_fill(const int* values, int* out) {
  KSHARED(int, tile, 8);
  if (threadIdx.x < 2) {
    terse::cuda::cp_async16_zfill(tile + 4 * threadIdx.x, values, threadIdx.x == 0);
    terse::cuda::cp_async_commit();
    terse::cuda::cp_async_wait<0>();
  }
  __syncthreads();
  if (threadIdx.x < 8) out[threadIdx.x] = tile[threadIdx.x];
}

TEST_CASE("a copy that is not valid writes zeros") {
  for_each_mode([&] {
    const DeviceBuffer<int> in(std::vector<int>{1, 2, 3, 4});
    const DeviceBuffer<int> out(8);
    klaunch(zero_fill, 1, 32, 0, nullptr, in.get(), out.get());
    CHECK(out.values() == std::vector<int>{1, 2, 3, 4, 0, 0, 0, 0});
  });
}

__global__ void votes(int* out) {
  const bool odd = threadIdx.x % 2 == 1;
  const int count = __syncthreads_count(odd);
  const int any = __syncthreads_or(threadIdx.x == 63);
  const int all = __syncthreads_and(threadIdx.x < 63);
  out[threadIdx.x] = count * 100 + any * 10 + all;
}

__global__ void atomics(unsigned* out) {
  atomicAdd(out, threadIdx.x);
  atomicMax(out + 1, threadIdx.x * 7 % 64);
  atomicMin(out + 2, threadIdx.x + 5);
  atomicCAS(out + 3, 0U, threadIdx.x + 1);
  atomicAdd(reinterpret_cast<float*>(out + 4), 0.5f);
}

TEST_CASE("a block votes; atomics add up") {
  for_each_mode([&] {
    const DeviceBuffer<int> voted(64);
    klaunch(votes, 1, 64, 0, nullptr, voted.get());
    CHECK(voted.values() == std::vector<int>(64, 3210));
    const DeviceBuffer<unsigned> out(std::vector<unsigned>{0, 0, 999, 0, 0});
    klaunch(atomics, 2, 64, 0, nullptr, out.get());
    const std::vector<unsigned> values = out.values();
    CHECK(values[0] == 2 * 63 * 64 / 2);
    CHECK(values[1] == 63);
    CHECK(values[2] == 5);
    CHECK(values[3] >= 1);
    CHECK(values[3] <= 64);
    CHECK(__uint_as_float(values[4]) == 64.0f);
  });
}

__global__ void read_fresh(float* out) {
  KSHARED(float, fixed, 4);
  KSHARED_DYN(float, dynamic);
  out[1] = fixed[threadIdx.x];
  out[2] = dynamic[threadIdx.x];
}

TEST_CASE("memory nobody wrote holds NaN") {
  const DeviceBuffer<float> out(3);
  klaunch(read_fresh, 1, 1, 16, nullptr, out.get());
  for (const float value : out.values()) CHECK(std::isnan(value));
}

// ---- Order

__global__ void log_order(int* cursor, int* log) {
  const int turn = atomicAdd(cursor, 1);
  log[turn] = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

std::vector<int> order_with(const emu::Options& chosen) {
  const emu::ScopedOptions scoped(chosen);
  const DeviceBuffer<int> cursor(std::vector<int>{0});
  const DeviceBuffer<int> log(2 * 64);
  klaunch(log_order, 2, 64, 0, nullptr, cursor.get(), log.get());
  return log.values();
}

TEST_CASE("a seed decides the order of threads and of blocks") {
  emu::Options chosen;
  CHECK(order_with(chosen) == iota(128));
  chosen.schedule = emu::Schedule::reverse;
  std::vector<int> reversed = iota(128);
  std::reverse(reversed.begin(), reversed.end());
  CHECK(order_with(chosen) == reversed);
  for (const std::uint64_t seed : {1U, 2U}) {
    chosen = emu::options_for_seed(seed);
    const std::vector<int> order = order_with(chosen);
    CHECK(order == order_with(chosen));
    CHECK(order != order_with(emu::options_for_seed(seed + 2)));
    std::vector<int> sorted = order;
    std::sort(sorted.begin(), sorted.end());
    CHECK(sorted == iota(128));
  }
}

__global__ void approximations(float* out) {
  const float x = 0.1f * static_cast<float>(threadIdx.x + 1);
  out[threadIdx.x] = terse::cuda::exp2_approx(x);
}

TEST_CASE("perturbed math is off by at most 2 ulp, by seed") {
  const auto run = [](bool perturbed, std::uint64_t seed) {
    emu::Options chosen;
    chosen.perturb_math = perturbed;
    chosen.seed = seed;
    const emu::ScopedOptions scoped(chosen);
    const DeviceBuffer<float> out(64);
    klaunch(approximations, 1, 64, 0, nullptr, out.get());
    return out.values();
  };
  const std::vector<float> exact = run(false, 1);
  const std::vector<float> first = run(true, 1);
  CHECK(first == run(true, 1));
  CHECK(first != run(true, 2));
  CHECK(first != exact);
  for (std::size_t i = 0; i < exact.size(); ++i) {
    CHECK(std::abs(__float_as_int(first[i]) - __float_as_int(exact[i])) <= 2);
  }
}

// ---- Faults

// That the launch is a Fault whose text holds `expected`, in every schedule.
template <class Launch>
void check_fault(const Launch& launch, const char* expected) {
  for_each_mode([&] {
    std::string message;
    try {
      launch();
      terse::cuda_test::require(cudaDeviceSynchronize());
    } catch (const emu::Fault& fault) {
      message = fault.what();
    }
    CAPTURE(message);
    CHECK(message.find(expected) != std::string::npos);
  });
}

template <void (*KERNEL)()>
void check_kernel_fault(const char* expected, unsigned threads = 64) {
  check_fault([threads] { klaunch(KERNEL, 1, threads, 0, nullptr); }, expected);
}

__global__ void two_barriers() {
  if (threadIdx.x % 32 < 16) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void exit_early() {
  if (threadIdx.x != 0) __syncthreads();
}
__global__ void own_lane_missing() { __syncwarp(0xfffffffeU); }
__global__ void lane_gone() {
  if (threadIdx.x == 3) return;
  __syncwarp();
}
__global__ void lane_never_was() { __syncwarp(); }
__global__ void overlapping() {
  if (threadIdx.x < 8) {
    __syncwarp(0x0000ffffU);
  } else if (threadIdx.x < 24) {
    __syncwarp(0x00ffff80U);
  }
}
__global__ void different_places() {
  if (threadIdx.x < 8) {
    __syncwarp();
  } else {
    __syncwarp();
  }
}
__global__ void outside_mask() {
  if (threadIdx.x < 16) __shfl_sync(0x0000ffffU, 1, 20);
}
__global__ void asks_for_active() { __activemask(); }
__global__ void bad_width() { __shfl_sync(kFull, 1, 0, 12); }
__global__ void circle() {
  if (threadIdx.x == 0) __syncwarp();
  __syncthreads();
}
__global__ void much_static() {
  KSHARED(float, big, 12 * 1024 + 1);
  big[0] = 0;
}
__global__ void trap() { __trap(); }

TEST_CASE("barriers and warp functions used against the rules") {
  check_kernel_fault<two_barriers>("divergent barrier");
  check_kernel_fault<exit_early>("exit");
  check_kernel_fault<own_lane_missing>("not in its own mask");
  check_kernel_fault<lane_gone>("exit");
  check_kernel_fault<lane_never_was>("never was", 48);
  check_kernel_fault<overlapping>("overlapping mask", 32);
  check_kernel_fault<different_places>("different places", 32);
  check_kernel_fault<outside_mask>("reads lane 20", 32);
  check_kernel_fault<asks_for_active>("__activemask");
  check_kernel_fault<bad_width>("width 12");
  check_kernel_fault<circle>("deadlock");
  check_kernel_fault<much_static>("static shared memory");
  check_kernel_fault<trap>("__trap");
}

__global__ void misaligned(const unsigned char* from) {
  KSHARED(unsigned char, to, 64);
  terse::cuda::cp_async16(to, from + 8);
}
__global__ void not_shared(unsigned char* from) { terse::cuda::cp_async16(from, from + 16); }
__global__ void not_global() {
  KSHARED(unsigned char, box, 64);
  terse::cuda::cp_async16(box, box + 16);
}
__global__ void matrix_misaligned() {
  KSHARED(unsigned char, box, 64);
  std::uint32_t out[2];
  terse::cuda::ldmatrix_x2(out, box + 4);
}
__global__ void store(int* address) { *address = 1; }
struct WithPointer {
  int count;
  const int* values;
};
__global__ void takes_struct(WithPointer argument, int* out) { *out = argument.values[0]; }

TEST_CASE("addresses that copies, matrix loads and launches refuse") {
  const DeviceBuffer<unsigned char> bytes(64);
  check_fault([&] { klaunch(misaligned, 1, 1, 0, nullptr, bytes.get()); }, "misaligned");
  check_fault([&] { klaunch(not_shared, 1, 1, 0, nullptr, bytes.get()); }, "not shared memory");
  check_fault([&] { klaunch(not_global, 1, 1, 0, nullptr); }, "not device memory");
  check_fault([&] { klaunch(matrix_misaligned, 1, 32, 0, nullptr); }, "misaligned row");
  int host = 0;
  check_fault([&] { klaunch(store, 1, 1, 0, nullptr, &host); }, "argument 0");
  const DeviceBuffer<int> out(1);
  check_fault(
      [&] {
        klaunch(takes_struct, 1, 1, 0, nullptr, WithPointer{1, &host}, out.get());
      },
      "argument 0");
  int* freed = nullptr;
  terse::cuda_test::require(cudaMalloc(&freed, 4));
  terse::cuda_test::require(cudaFree(freed));
  check_fault([&] { klaunch(store, 1, 1, 0, nullptr, freed); }, "no live device memory");
}

}  // namespace
