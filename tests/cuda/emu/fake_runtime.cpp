// The runtime's devices, errors, memory and copies, on the host.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <string_view>
#include <utility>

#include "fake_device.h"

namespace emu {

Runtime& runtime() {
  static Runtime state;
  return state;
}

const std::pair<const std::uintptr_t, Allocation>* find_allocation(std::uintptr_t address) {
  const auto& all = runtime().allocations;
  auto next = all.upper_bound(address);
  if (next == all.begin()) return nullptr;
  --next;
  return address < next->first + next->second.bytes ? &*next : nullptr;
}

bool is_pinned(std::uintptr_t address) {
  const auto& all = runtime().pinned;
  auto next = all.upper_bound(address);
  return next != all.begin() && address < std::prev(next)->first + std::prev(next)->second;
}

namespace {

thread_local int chosen_device = 0;
thread_local cudaError_t last_error = cudaSuccess;

void poison_all(bool poisoned) {
  for (const auto& [address, allocation] : runtime().allocations) {
    const auto* const start = reinterpret_cast<const void*>(address);
    poisoned ? poison(start, allocation.bytes) : unpoison(start, allocation.bytes);
  }
}

bool valid_device(int device) { return device >= 0 && device < options().device_count; }

}  // namespace

std::recursive_mutex& runtime_mutex() { return runtime().mutex; }
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
  return runtime().allocations.size() + runtime().pinned.size();
}

DeviceRange device_allocation(const void* inside) {
  const auto address = reinterpret_cast<std::uintptr_t>(inside);
  if (const auto* const found = find_allocation(address)) {
    return {reinterpret_cast<const void*>(found->first), found->second.bytes};
  }
  if (!is_pinned(address)) return {nullptr, 0};
  const auto block = std::prev(runtime().pinned.upper_bound(address));
  return {reinterpret_cast<const void*>(block->first), block->second};
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

namespace {

// Large allocations (a backend's arena and workspace) are pages of a file of NaN bits, each copied
// when it is first written: filling them would take longer than the tests. Small ones come from the
// heap, where AddressSanitizer knows the call that made them.
constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kLargeBytes = std::size_t{1} << 20;
constexpr std::size_t kPatternBytes = std::size_t{4} << 20;

std::size_t whole_pages(std::size_t bytes) {
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

int pattern_file() {
  static const int file = [] {
    const int made = memfd_create("nan", 0);
    const std::vector<unsigned char> pattern(kPatternBytes, 0xff);
    if (made < 0 ||
        write(made, pattern.data(), pattern.size()) != static_cast<ssize_t>(pattern.size())) {
      throw Fault("emulator: no file of NaN bits");
    }
    return made;
  }();
  return file;
}

// Memory filled with NaN bits, or null. After a large one's last byte comes poison, then a page
// that nobody may touch.
void* take_memory(std::size_t bytes) {
  if (bytes < kLargeBytes) {
    void* memory = nullptr;
    if (posix_memalign(&memory, kAlignment, bytes) != 0) return nullptr;
    std::memset(memory, 0xff, bytes);
    return memory;
  }
  const std::size_t mapped = whole_pages(bytes);
  void* const start = mmap(nullptr, mapped + kPageBytes, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return nullptr;
  auto* const memory = static_cast<unsigned char*>(start);
  for (std::size_t offset = 0; offset < mapped; offset += kPatternBytes) {
    if (mmap(memory + offset, std::min(kPatternBytes, mapped - offset), PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, pattern_file(), 0) == MAP_FAILED) {
      munmap(start, mapped + kPageBytes);
      return nullptr;
    }
  }
  poison(memory + bytes, mapped - bytes);
  return memory;
}

void give_memory(void* memory, std::size_t bytes) {
  if (bytes < kLargeBytes) {
    unpoison(memory, bytes);
    std::free(memory);
    return;
  }
  unpoison(memory, whole_pages(bytes));
  munmap(memory, whole_pages(bytes) + kPageBytes);
}

// Whether a test asked for this allocation to fail.
bool fails_now() {
  Runtime& state = runtime();
  return state.allocations_until_failure >= 0 && state.allocations_until_failure-- == 0;
}

cudaError_t allocate(void** pointer, std::size_t bytes) {
  if (pointer == nullptr) return note(cudaErrorInvalidValue);
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  Runtime& state = runtime();
  DeviceState& device = state.devices[chosen_device];
  if (fails_now()) return note(cudaErrorMemoryAllocation);
  if (bytes <= options().memory_bytes - std::min(device.used_bytes, options().memory_bytes)) {
    *pointer = take_memory(bytes);
  }
  if (*pointer == nullptr) return note(cudaErrorMemoryAllocation);
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
  const std::size_t bytes = found->second.bytes;
  runtime().devices[found->second.device].used_bytes -= bytes;
  all.erase(found);
  give_memory(pointer, bytes);
  return cudaSuccess;
}

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

int attribute_value(cudaDeviceAttr attribute) {
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      return 1024;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return static_cast<int>(kDefaultSharedBytes);
    case cudaDevAttrWarpSize:
      return 32;
    case cudaDevAttrMaxRegistersPerBlock:
      return static_cast<int>(kRegisters);
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
  return on_runtime([&] {
    *device = chosen_device;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return on_runtime([&] {
    if (!valid_device(device)) return note(cudaErrorInvalidDevice);
    const int answer = attribute_value(attribute);
    if (answer < 0) return note(cudaErrorInvalidValue);
    *value = answer;
    return cudaSuccess;
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return on_runtime([&] {
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
  return on_runtime([&] {
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
  return on_runtime([&] { return allocate(pointer, bytes); });
}

cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  return on_runtime([&] { return enqueue(stream, [pointer] { release_memory(pointer); }); });
}

cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned) {
  return on_runtime([&] {
    *pointer = nullptr;
    if (bytes == 0) return cudaSuccess;
    if (fails_now() || posix_memalign(pointer, kAlignment, bytes) != 0) {
      *pointer = nullptr;
      return note(cudaErrorMemoryAllocation);
    }
    runtime().pinned[reinterpret_cast<std::uintptr_t>(*pointer)] = bytes;
    ++counted().allocations;
    return cudaSuccess;
  });
}
cudaError_t cudaMallocHost(void** pointer, std::size_t bytes) {
  return cudaHostAlloc(pointer, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void* pointer) {
  const Lock lock(runtime_mutex());
  const cudaError_t error = enter();
  if (error == cudaSuccess) finish_device(-1);
  runtime().pinned.erase(reinterpret_cast<std::uintptr_t>(pointer));
  std::free(pointer);
  return error;
}

cudaError_t cudaHostRegister(void*, std::size_t, unsigned) {
  return on_runtime([] { return cudaSuccess; });
}
cudaError_t cudaHostUnregister(void*) {
  return on_runtime([] { return cudaSuccess; });
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
  return on_runtime(
      [&] { return copy(to, to_pitch, from, from_pitch, width, height, kind, stream); });
}
cudaError_t cudaMemset(void* to, int value, std::size_t bytes) {
  return synchronously([&] {
    finish_blocking(chosen_device);
    return fill(to, value, bytes, nullptr);
  });
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  return on_runtime([&] { return fill(to, value, bytes, stream); });
}
