// A CUDA device on the CPU: kernels compiled by a host compiler run with each thread of a block as
// a fiber, one block at a time, in an order that a test chooses. What a GPU would leave undefined
// is a Fault here; memory errors and races are for AddressSanitizer and ThreadSanitizer to find.
//
// How to launch a test
//   1. In CMake: terse_cuda_test(test_x SOURCES test_x.cpp). It is built plain, with ASan + UBSan
//      and with TSan, no toolkit needed; <cuda_runtime.h>, <cublas_v2.h>, <cublasLt.h> are the
//      stand-ins, kernels/*.cuh and host code that calls the runtime compile unchanged.
//   2. #include "cuda_test.h" (launch trait and device buffers) and write
//        for_each_mode([&] {                 // every schedule, or the PTX, or the device
//          DeviceBuffer<float> x(values);    // exact in size: one element past it is reported
//          rms_norm(...);                    // a launcher: klaunch(...)
//          CHECK(x.values() == expected);
//        });
//   3. A kernel's fault is an exception emu::Fault from the launch (or, with deferred streams, from
//      the call that synchronises). EMU_SCHEDULE=<name of the failed one> runs that one alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "runtime_types.h"

namespace emu {

// A rule of CUDA broken by a kernel or by the host; what() says which, where and by whom.
class Fault : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// ---- What a test chooses

enum class Schedule : std::uint8_t {
  in_order,  // threads 0, 1, ... each up to its next barrier or warp operation, and round again
  reverse,   // from the last to the first; blocks too
  shuffled,  // a new order each round
  greedy,    // one warp as far as it can, then the next; warps, lanes and blocks shuffled
};

struct Options {
  Schedule schedule = Schedule::in_order;
  std::uint64_t seed = 0;
  bool copy_at_wait = false;      // cp.async writes at the wait that covers it, not at issue
  bool perturb_math = false;      // every approximate function is off by up to 2 ulp, by seed
  bool deferred_streams = false;  // stream work runs when a call synchronises, not at once
  bool driver = true;             // false: every call says that there is no driver
  int device_count = 1;
  std::size_t memory_bytes = std::size_t{8} << 30;  // of each device
  std::size_t smem_optin_bytes = 227 * 1024;        // most shared memory a block may opt in to
  int compute_capability = 90;                      // major * 10 + minor
  bool blas_epilogues = true;  // cuBLASLt finds algorithms with an epilogue; false: none
};
Options& options();

// Sets the options for as long as it lives.
class ScopedOptions {
 public:
  explicit ScopedOptions(const Options& chosen) : saved_(options()) { options() = chosen; }
  ~ScopedOptions() { options() = saved_; }
  ScopedOptions(const ScopedOptions&) = delete;
  ScopedOptions& operator=(const ScopedOptions&) = delete;

 private:
  Options saved_;
};

// By seed: odd is greedy with copies at issue, even is shuffled with copies at the wait.
Options options_for_seed(std::uint64_t seed);

struct NamedOptions {
  std::string name;  // as EMU_SCHEDULE takes it
  Options options;
};
// What CI runs: in order, reverse and four seeds, with streams deferred in half of them and, in the
// last, approximate functions perturbed; a build with TSan, which finds a race in any order, runs
// the second seed, where copies are under way longest. The environment variable EMU_SCHEDULE picks
// one by name.
std::vector<NamedOptions> schedules();

// From the call after the next `after_calls` runtime calls on, each call on that device returns
// `error`, until restore_device or cudaDeviceReset.
void lose_device(int device, cudaError_t error, long after_calls = 0);
void restore_device(int device);
// The allocation after the next `after_allocations` ones fails for want of memory, once.
void fail_allocation(long after_allocations = 0);

// Bytes of live device allocations (all devices), and the number of these and of blocks of pinned
// host memory, to find leaks.
std::size_t live_bytes();
std::size_t live_allocations();
// Kernel launches, graph launches, host synchronisations, allocations (of pinned memory too) and
// products with an epilogue since the start, to hold a forward pass to its promises.
struct Counters {
  long launches = 0, graph_launches = 0, synchronizations = 0, allocations = 0, epilogues = 0;
};
Counters counters();

// What a kernel was compiled to, by its name in limits.json: a launch with more threads than its
// bound, or more registers than a multiprocessor has, is refused. Kernels without are not checked.
struct Resources {
  unsigned max_threads, registers;
};
void set_resources(const std::string& kernel, const Resources& resources);

// ---- Another way to run a kernel: the PTX interpreter

struct Param {
  const void* data;
  std::size_t size, alignment;
  bool is_pointer;
};
struct Launch {
  std::string name;  // mangled; empty if the program, linked with its symbols, exports none
  dim3 grid, block;
  std::size_t dynamic_smem;
  std::vector<Param> params;  // alive until the grid ends
};
// What one thread of the grid runs, in its fiber.
using Body = std::function<void()>;
// If set, each launch asks it for the body to run in place of the kernel's own.
void set_body_provider(std::function<Body(const Launch&)> provider);

// ---- What a running thread may call. `site` is the place in the source.

struct Site {
  const char* file;
  int line;
  unsigned id;  // tells apart what shares a line
};
#define EMU_SITE (::emu::Site{__FILE__, __LINE__, __COUNTER__})

struct Thread {
  uint3 thread, block;
  dim3 block_dim, grid_dim;
  unsigned linear;  // index in the block
  unsigned lane;
};
extern Thread* current;  // the running one

[[noreturn]] void fault(const std::string& message);

void block_barrier(Site site);
enum class Vote : std::uint8_t { all, any, count };
int block_vote(Site site, Vote vote, bool predicate);
void warp_barrier(Site site, std::uint32_t mask);
enum class Shuffle : std::uint8_t { index, up, down, exclusive_or };
// PTX shfl.sync on up to 64 bits; `in_range`, if given, receives the predicate of the instruction.
std::uint64_t shuffle(Site site, Shuffle kind, std::uint32_t mask, std::uint64_t value,
                      std::uint32_t operand, int width, bool* in_range = nullptr);
std::uint32_t ballot(Site site, std::uint32_t mask, bool predicate);
enum class Reduce : std::uint8_t {
  add,
  min_signed,
  max_signed,
  min,
  max,
  bit_and,
  bit_or,
  bit_xor
};
std::uint32_t reduce(Site site, Reduce kind, std::uint32_t mask, std::uint32_t value);
// ldmatrix.m8n8 of 1, 2 or 4 matrices into as many registers.
void load_matrix(Site site, int matrices, bool transposed, std::uint32_t* out, const void* row);
enum class Element : std::uint8_t { bf16, f16 };
// mma.m16n8k16.row.col with f32 accumulators: d (4) += a (4 registers) b (2 registers).
void multiply(Site site, Element element, float* d, const std::uint32_t* a, const std::uint32_t* b);

// cp.async: 4, 8 or 16 bytes, of which the first source_bytes are read and the others zero.
void async_copy(void* shared, const void* global, std::size_t bytes, std::size_t source_bytes);
void async_commit();
void async_wait(int newest);

// Static shared memory of the block: the same address for the same key in each thread.
void* shared_array(const void* key, std::size_t bytes, std::size_t alignment, const char* name);
void* dynamic_shared();
std::size_t dynamic_shared_bytes();
// Where the block's shared memory starts and how long it may be: what a 32-bit shared address
// counts from.
unsigned char* shared_window();
inline constexpr std::size_t kSharedWindowBytes = std::size_t{1} << 20;

// The live allocation of device memory, of any device, that holds an address; begin is null if none
// does. For the interpreter, which checks each access.
struct DeviceRange {
  const void* begin;
  std::size_t bytes;
};
DeviceRange device_allocation(const void* inside);

// f(x) as computed by the host, off by up to 2 ulp if so chosen.
float approximate(float exact);

// ---- What klaunch is made of

// A kernel with its arguments.
class Call {
 public:
  Call() = default;
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  virtual ~Call() = default;
  virtual void run() const = 0;  // one thread

  std::vector<Param> params;
};
cudaError_t launch(const void* kernel, dim3 grid, dim3 block, std::size_t dynamic_smem,
                   cudaStream_t stream, std::shared_ptr<Call> call);

}  // namespace emu
