// The runtime's devices, memory and launches, on the host.
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string_view>
#include <utility>

#include "fake_device.h"

namespace emu {

namespace {

struct Allocation {
  std::size_t bytes;
  int device;
};

struct DeviceState {
  std::size_t used_bytes = 0;
  cudaError_t lost = cudaSuccess;
  long calls_until_lost = 0;
};

struct Runtime {
  std::recursive_mutex mutex;
  Options options;
  Counters counters;
  std::map<std::uintptr_t, Allocation> allocations;  // by address
  std::map<int, DeviceState> devices;
  std::map<std::pair<int, const void*>, std::size_t> dynamic_limits;  // opted in
  std::map<std::string, int, std::less<>> registers;
  std::function<Body(const Launch&)> body_provider;
  long allocations_until_failure = -1;
  int access_depth = 0;
};

Runtime& runtime() {
  static Runtime state;
  return state;
}

thread_local int chosen_device = 0;
thread_local cudaError_t last_error = cudaSuccess;

constexpr std::size_t kDefaultSharedBytes = std::size_t{48} << 10;
constexpr std::size_t kAlignment = 256;  // as the runtime promises

// The allocation that holds the byte at `address`, or null.
const std::pair<const std::uintptr_t, Allocation>* find_allocation(std::uintptr_t address) {
  const auto& all = runtime().allocations;
  auto next = all.upper_bound(address);
  if (next == all.begin()) return nullptr;
  --next;
  return address < next->first + next->second.bytes ? &*next : nullptr;
}

void poison_all(bool poisoned) {
  for (const auto& [address, allocation] : runtime().allocations) {
    const auto* const start = reinterpret_cast<const void*>(address);
    poisoned ? poison(start, allocation.bytes) : unpoison(start, allocation.bytes);
  }
}

bool valid_device(int device) { return device >= 0 && device < options().device_count; }

// ---- Launches

// A pointer that a kernel receives lies in memory of its device, or is null.
void check_pointer(std::uintptr_t address, int device, std::size_t index) {
  const auto* const found = find_allocation(address);
  if (address == 0 || (found != nullptr && found->second.device == device)) return;
  // One past the end is a legal pointer: the end of an empty range.
  const auto* const before = find_allocation(address - 1);
  if (before != nullptr && before->second.device == device) return;
  fault("argument " + std::to_string(index) + " of a launch is a pointer to " +
        (found != nullptr ? "memory of another device" : "no live device memory"));
}

// Pointers inside a struct, found by value: a word that would be an address of the host's program,
// heap or stack.
void check_words(const Param& param, int device, std::size_t index) {
  for (std::size_t offset = 0; offset + 8 <= param.size; offset += 8) {
    std::uintptr_t word;
    std::memcpy(&word, static_cast<const unsigned char*>(param.data) + offset, sizeof(word));
    if (word >= 0x550000000000U && word <= 0x7fffffffffffU) check_pointer(word, device, index);
  }
}

cudaError_t check_shape(dim3 grid, dim3 block) {
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  const bool bad = threads == 0 || threads > 1024 || block.z > 64 || grid.x == 0 || grid.y == 0 ||
                   grid.z == 0 || grid.x > 0x7fffffffU || grid.y > 65535 || grid.z > 65535;
  return bad ? cudaErrorInvalidConfiguration : cudaSuccess;
}

std::string symbol_of(const void* kernel) {
  Dl_info info;
  if (dladdr(kernel, &info) == 0 || info.dli_sname == nullptr || info.dli_saddr != kernel) {
    fault("a kernel without an exported symbol: link the test with ENABLE_EXPORTS");
  }
  return info.dli_sname;
}

}  // namespace

std::recursive_mutex& runtime_mutex() { return runtime().mutex; }
Options& options() { return runtime().options; }
Counters& counted() { return runtime().counters; }
Counters counters() { return runtime().counters; }
int current_device() { return chosen_device; }

cudaError_t note(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

cudaError_t enter() {
  if (!options().driver) return note(cudaErrorInsufficientDriver);
  if (options().device_count == 0) return note(cudaErrorNoDevice);
  if (!valid_device(chosen_device)) return note(cudaErrorInvalidDevice);
  DeviceState& device = runtime().devices[chosen_device];
  if (device.lost == cudaSuccess) return cudaSuccess;
  if (device.calls_until_lost > 0) {
    --device.calls_until_lost;
    return cudaSuccess;
  }
  return note(device.lost);
}

void lose_device(int device, cudaError_t error, long after_calls) {
  const Lock lock(runtime_mutex());
  DeviceState& state = runtime().devices[device];
  state.lost = error;
  state.calls_until_lost = after_calls;
}

void restore_device(int device) {
  const Lock lock(runtime_mutex());
  runtime().devices[device].lost = cudaSuccess;
}

void fail_allocation(long after_allocations) {
  const Lock lock(runtime_mutex());
  runtime().allocations_until_failure = after_allocations;
}

std::size_t live_bytes() {
  const Lock lock(runtime_mutex());
  std::size_t bytes = 0;
  for (const auto& [address, allocation] : runtime().allocations) bytes += allocation.bytes;
  return bytes;
}

std::size_t live_allocations() {
  const Lock lock(runtime_mutex());
  return runtime().allocations.size();
}

DeviceRange device_allocation(const void* inside) {
  const auto* const found = find_allocation(reinterpret_cast<std::uintptr_t>(inside));
  if (found == nullptr) return {nullptr, 0};
  return {reinterpret_cast<const void*>(found->first), found->second.bytes};
}

void set_registers(const std::string& kernel, int registers) {
  const Lock lock(runtime_mutex());
  if (registers > 0) {
    runtime().registers[kernel] = registers;
  } else {
    runtime().registers.erase(kernel);
  }
}

void set_body_provider(std::function<Body(const Launch&)> provider) {
  const Lock lock(runtime_mutex());
  runtime().body_provider = std::move(provider);
}

Options options_for_seed(std::uint64_t seed) {
  Options chosen = options();
  chosen.schedule = seed % 2 == 1 ? Schedule::greedy : Schedule::shuffled;
  chosen.copy_at_wait = seed % 2 == 0;
  chosen.seed = seed;
  return chosen;
}

std::vector<NamedOptions> schedules() {
  std::vector<NamedOptions> all = {{"in_order", options()}, {"reverse", options()}};
  all[1].options.schedule = Schedule::reverse;
  all[1].options.copy_at_wait = true;
  all[1].options.deferred_streams = true;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    all.push_back({"seed_" + std::to_string(seed), options_for_seed(seed)});
    all.back().options.deferred_streams = seed % 4 >= 2;
    all.back().options.perturb_math = seed == 4;
  }
#ifdef EMU_TSAN
  all = {all[0], all[3]};
#endif
  if (const char* const name = std::getenv("EMU_SCHEDULE")) {
    std::erase_if(all, [name](const NamedOptions& one) { return one.name != name; });
    if (all.empty()) throw Fault(std::string("EMU_SCHEDULE: no schedule ") + name);
  }
  return all;
}

// ---- Memory

bool in_device_memory(const void* address, std::size_t bytes) {
  const auto start = reinterpret_cast<std::uintptr_t>(address);
  const auto* const found = find_allocation(start);
  return found != nullptr && start + bytes <= found->first + found->second.bytes;
}

DeviceAccess::DeviceAccess() {
  if (runtime().access_depth++ == 0) poison_all(false);
}
DeviceAccess::~DeviceAccess() {
  if (--runtime().access_depth == 0) poison_all(true);
}

cudaError_t allocate(void** pointer, std::size_t bytes) {
  if (pointer == nullptr) return note(cudaErrorInvalidValue);
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  Runtime& state = runtime();
  DeviceState& device = state.devices[chosen_device];
  if (state.allocations_until_failure >= 0 && state.allocations_until_failure-- == 0) {
    return note(cudaErrorMemoryAllocation);
  }
  if (bytes > options().memory_bytes - std::min(device.used_bytes, options().memory_bytes) ||
      posix_memalign(pointer, kAlignment, bytes) != 0) {
    *pointer = nullptr;
    return note(cudaErrorMemoryAllocation);
  }
  std::memset(*pointer, 0xff, bytes);
  state.allocations[reinterpret_cast<std::uintptr_t>(*pointer)] = {bytes, chosen_device};
  device.used_bytes += bytes;
  ++state.counters.allocations;
  if (state.access_depth == 0) poison(*pointer, bytes);
  return cudaSuccess;
}

cudaError_t release_memory(void* pointer) {
  if (pointer == nullptr) return cudaSuccess;
  auto& all = runtime().allocations;
  const auto found = all.find(reinterpret_cast<std::uintptr_t>(pointer));
  if (found == all.end()) return note(cudaErrorInvalidValue);
  runtime().devices[found->second.device].used_bytes -= found->second.bytes;
  unpoison(pointer, found->second.bytes);
  all.erase(found);
  std::free(pointer);
  return cudaSuccess;
}

// ---- Launches

cudaError_t launch(const void* kernel, dim3 grid, dim3 block, std::size_t dynamic_smem,
                   cudaStream_t stream, std::shared_ptr<Call> call) {
  const Lock lock(runtime_mutex());
  if (const cudaError_t error = enter(); error != cudaSuccess) return error;
  if (const cudaError_t error = check_shape(grid, block); error != cudaSuccess) return note(error);
  const int device = device_of(stream);
  if (device != chosen_device) return note(cudaErrorInvalidResourceHandle);
  Runtime& state = runtime();
  const auto opted = state.dynamic_limits.find({device, kernel});
  const std::size_t dynamic_limit =
      opted != state.dynamic_limits.end() ? opted->second : kDefaultSharedBytes;
  if (dynamic_smem > std::max(dynamic_limit, kDefaultSharedBytes)) {
    return note(cudaErrorInvalidValue);
  }
  const std::size_t shared_limit =
      opted != state.dynamic_limits.end() ? options().smem_optin_bytes : kDefaultSharedBytes;
  if (!state.registers.empty()) {
    const auto known = state.registers.find(symbol_of(kernel));
    if (known != state.registers.end() &&
        static_cast<std::uint64_t>(known->second) * block.x * block.y * block.z > 65536) {
      return note(cudaErrorLaunchOutOfResources);
    }
  }
  for (std::size_t i = 0; i < call->params.size(); ++i) {
    const Param& param = call->params[i];
    if (param.is_pointer) {
      std::uintptr_t address;
      std::memcpy(&address, param.data, sizeof(address));
      check_pointer(address, device, i);
    } else {
      check_words(param, device, i);
    }
  }
  ++state.counters.launches;
  return enqueue(stream, [=, call = std::move(call)] {
    const DeviceAccess access;
    Body body;
    if (runtime().body_provider) {
      body = runtime().body_provider({symbol_of(kernel), grid, block, dynamic_smem, call->params});
    }
    if (!body) body = [&call] { call->run(); };
    run_grid(grid, block, dynamic_smem, shared_limit, body);
  });
}

namespace {

// ---- Copies

bool direction_fits(const void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const bool to_device = in_device_memory(to, bytes);
  const bool from_device = in_device_memory(from, bytes);
  switch (kind) {
    case cudaMemcpyHostToHost:
      return !to_device && !from_device;
    case cudaMemcpyHostToDevice:
      return to_device && !from_device;
    case cudaMemcpyDeviceToHost:
      return !to_device && from_device;
    case cudaMemcpyDeviceToDevice:
      return to_device && from_device;
    case cudaMemcpyDefault:
      return true;
  }
  return false;
}

// `rows` rows of `bytes` bytes each, `pitch` apart.
cudaError_t copy(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                 std::size_t bytes, std::size_t rows, cudaMemcpyKind kind, cudaStream_t stream) {
  if (bytes == 0 || rows == 0) return cudaSuccess;
  if (to == nullptr || from == nullptr || to_pitch < bytes || from_pitch < bytes ||
      !direction_fits(to, from, bytes, kind) ||
      !direction_fits(static_cast<unsigned char*>(to) + (rows - 1) * to_pitch,
                      static_cast<const unsigned char*>(from) + (rows - 1) * from_pitch, bytes,
                      kind)) {
    return note(cudaErrorInvalidValue);
  }
  return enqueue(stream, [=] {
    const DeviceAccess access;
    for (std::size_t row = 0; row < rows; ++row) {
      copy_bytes(static_cast<unsigned char*>(to) + row * to_pitch,
                 static_cast<const unsigned char*>(from) + row * from_pitch, bytes);
    }
  });
}

cudaError_t fill(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!in_device_memory(to, bytes)) return note(cudaErrorInvalidValue);
  return enqueue(stream, [=] {
    const DeviceAccess access;
    fill_bytes(to, static_cast<unsigned char>(value), bytes);
  });
}

// What a copy without a stream does around its work on the default stream.
template <class Work>
cudaError_t synchronously(const Work& work) {
  const Lock lock(runtime_mutex());
  if (const cudaError_t error = enter(); error != cudaSuccess) return error;
  if (breaks_capture()) return note(cudaErrorStreamCaptureUnsupported);
  const cudaError_t error = work();
  if (error == cudaSuccess) finish_blocking(chosen_device);
  return error;
}

template <class Work>
cudaError_t asynchronously(const Work& work) {
  const Lock lock(runtime_mutex());
  if (const cudaError_t error = enter(); error != cudaSuccess) return error;
  return work();
}

int attribute_value(cudaDeviceAttr attribute) {
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      return 1024;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return static_cast<int>(kDefaultSharedBytes);
    case cudaDevAttrWarpSize:
      return 32;
    case cudaDevAttrMaxRegistersPerBlock:
      return 65536;
    case cudaDevAttrMultiProcessorCount:
      return 4;
    case cudaDevAttrL2CacheSize:
      return 4 << 20;
    case cudaDevAttrComputeCapabilityMajor:
      return options().compute_capability / 10;
    case cudaDevAttrComputeCapabilityMinor:
      return options().compute_capability % 10;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return static_cast<int>(options().smem_optin_bytes) + 1024;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return static_cast<int>(options().smem_optin_bytes);
  }
  return -1;
}

}  // namespace

}  // namespace emu

using namespace emu;

// ---- Devices

cudaError_t cudaGetDeviceCount(int* count) {
  const Lock lock(runtime_mutex());
  // The count is left untouched without a driver, as by the real function.
  if (!options().driver) return note(cudaErrorInsufficientDriver);
  if (options().device_count == 0) return note(cudaErrorNoDevice);
  *count = options().device_count;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  const Lock lock(runtime_mutex());
  if (!options().driver) return note(cudaErrorInsufficientDriver);
  if (options().device_count == 0) return note(cudaErrorNoDevice);
  if (!valid_device(device)) return note(cudaErrorInvalidDevice);
  chosen_device = device;
  return enter();
}

cudaError_t cudaGetDevice(int* device) {
  return asynchronously([&] {
    *device = chosen_device;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return asynchronously([&] {
    if (!valid_device(device)) return note(cudaErrorInvalidDevice);
    const int answer = attribute_value(attribute);
    if (answer < 0) return note(cudaErrorInvalidValue);
    *value = answer;
    return cudaSuccess;
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return asynchronously([&] {
    if (!valid_device(device)) return note(cudaErrorInvalidDevice);
    *properties = {};
    const std::string name = "Emulated device " + std::to_string(device);
    std::copy(name.begin(), name.end(), properties->name);
    properties->totalGlobalMem = options().memory_bytes;
    properties->sharedMemPerBlock = kDefaultSharedBytes;
    properties->regsPerBlock = attribute_value(cudaDevAttrMaxRegistersPerBlock);
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->major = options().compute_capability / 10;
    properties->minor = options().compute_capability % 10;
    properties->multiProcessorCount = attribute_value(cudaDevAttrMultiProcessorCount);
    properties->l2CacheSize = attribute_value(cudaDevAttrL2CacheSize);
    properties->memoryBusWidth = 64;
    properties->maxThreadsPerMultiProcessor = 2048;
    properties->sharedMemPerMultiprocessor = options().smem_optin_bytes + 1024;
    properties->sharedMemPerBlockOptin = options().smem_optin_bytes;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceSynchronize() {
  return synchronously([] {
    ++counted().synchronizations;
    finish_device(chosen_device);
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceReset() {
  const Lock lock(runtime_mutex());
  if (!valid_device(chosen_device)) return note(cudaErrorNoDevice);
  drop_streams(chosen_device);
  std::vector<void*> owned;
  for (const auto& [address, allocation] : runtime().allocations) {
    if (allocation.device == chosen_device) owned.push_back(reinterpret_cast<void*>(address));
  }
  for (void* const pointer : owned) release_memory(pointer);
  runtime().devices[chosen_device] = {};
  last_error = cudaSuccess;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = options().driver ? 13000 : 0;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  return asynchronously([&] {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || static_cast<std::size_t>(value) > options().smem_optin_bytes) {
      return note(cudaErrorInvalidValue);
    }
    runtime().dynamic_limits[{chosen_device, kernel}] = static_cast<std::size_t>(value);
    return cudaSuccess;
  });
}

// ---- Errors

cudaError_t cudaPeekAtLastError() { return last_error; }
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

const char* cudaGetErrorName(cudaError_t error) {
#define EMU_VALUES_ONLY
#define EMU_BEGIN(type)                                   \
  if constexpr (std::string_view(#type) == "cudaError") { \
    switch (static_cast<int>(error)) {
#define EMU_VALUE(name, value) \
  case value:                  \
    return #name;
#define EMU_END(type) \
  default:            \
    break;            \
    }                 \
    }
#define EMU_FLAG(name, value)
#define EMU_FUNCTION(result, name, parameters)
#include "runtime_api.inc"
#undef EMU_BEGIN
#undef EMU_VALUE
#undef EMU_END
#undef EMU_FLAG
#undef EMU_FUNCTION
  return "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

// ---- Memory

cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes) {
  return asynchronously([&] {
    *total_bytes = options().memory_bytes;
    *free_bytes =
        *total_bytes - std::min(*total_bytes, runtime().devices[chosen_device].used_bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  return synchronously([&] { return allocate(pointer, bytes); });
}

cudaError_t cudaFree(void* pointer) {
  const Lock lock(runtime_mutex());
  if (pointer == nullptr) return cudaSuccess;
  const cudaError_t error = enter();
  if (error == cudaSuccess) {
    if (breaks_capture()) return note(cudaErrorStreamCaptureUnsupported);
    finish_device(chosen_device);
  }
  // Memory of a lost device is gone with it.
  const cudaError_t released = release_memory(pointer);
  return error != cudaSuccess ? error : released;
}

cudaError_t cudaMallocAsync(void** pointer, std::size_t bytes, cudaStream_t) {
  return asynchronously([&] { return allocate(pointer, bytes); });
}

cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  return asynchronously([&] { return enqueue(stream, [pointer] { release_memory(pointer); }); });
}

cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned) {
  return asynchronously([&] {
    *pointer = nullptr;
    if (bytes == 0) return cudaSuccess;
    if (posix_memalign(pointer, kAlignment, bytes) == 0) return cudaSuccess;
    *pointer = nullptr;
    return note(cudaErrorMemoryAllocation);
  });
}
cudaError_t cudaMallocHost(void** pointer, std::size_t bytes) {
  return cudaHostAlloc(pointer, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void* pointer) {
  const Lock lock(runtime_mutex());
  const cudaError_t error = enter();
  if (error == cudaSuccess) finish_device(-1);
  std::free(pointer);
  return error;
}

cudaError_t cudaHostRegister(void*, std::size_t, unsigned) {
  return asynchronously([] { return cudaSuccess; });
}
cudaError_t cudaHostUnregister(void*) {
  return asynchronously([] { return cudaSuccess; });
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpy2D(to, bytes, from, bytes, bytes, 1, kind);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}
cudaError_t cudaMemcpy2D(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                         std::size_t width, std::size_t height, cudaMemcpyKind kind) {
  return synchronously([&] {
    finish_blocking(chosen_device);
    return copy(to, to_pitch, from, from_pitch, width, height, kind, nullptr);
  });
}
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from,
                              std::size_t from_pitch, std::size_t width, std::size_t height,
                              cudaMemcpyKind kind, cudaStream_t stream) {
  return asynchronously(
      [&] { return copy(to, to_pitch, from, from_pitch, width, height, kind, stream); });
}
cudaError_t cudaMemset(void* to, int value, std::size_t bytes) {
  return synchronously([&] {
    finish_blocking(chosen_device);
    return fill(to, value, bytes, nullptr);
  });
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  return asynchronously([&] { return fill(to, value, bytes, stream); });
}
