// Launches: what a device refuses, which pointers a kernel may be handed, and the grid's place in
// its stream.
#include <cxxabi.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "fake_device.h"

namespace emu {

namespace {

// A pointer that a kernel receives lies in memory of its device or pinned memory, or is null.
void check_pointer(std::uintptr_t address, int device, std::size_t index) {
  const auto* const found = find_allocation(address);
  if (address == 0 || (found != nullptr && found->second.device == device)) return;
  if (is_pinned(address)) return;
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

// The mangled name of a kernel; empty for one that the program does not export.
std::string symbol_of(const void* kernel) {
  Dl_info info;
  const bool known =
      dladdr(kernel, &info) != 0 && info.dli_sname != nullptr && info.dli_saddr == kernel;
  return known ? info.dli_sname : "";
}

// The name of a kernel as limits.json has it: without namespaces, result and parameters.
std::string short_name(const std::string& symbol) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status), std::free);
  if (status != 0) return symbol;
  std::string name = text.get();
  name.erase(std::min(name.find('('), name.size()));
  if (name.starts_with("void ")) name.erase(0, 5);
  for (const char* const scope : {"terse::cuda::", "terse::"}) {
    for (std::size_t at = name.find(scope); at != std::string::npos; at = name.find(scope)) {
      name.erase(at, std::strlen(scope));
    }
  }
  return name;
}

}  // namespace

void set_resources(const std::string& kernel, const Resources& resources) {
  const Lock lock(runtime_mutex());
  runtime().resources[kernel] = resources;
}

void set_body_provider(std::function<Body(const Launch&)> provider) {
  const Lock lock(runtime_mutex());
  runtime().body_provider = std::move(provider);
}

cudaError_t launch(const void* kernel, dim3 grid, dim3 block, std::size_t dynamic_smem,
                   cudaStream_t stream, std::shared_ptr<Call> call) {
  const Lock lock(runtime_mutex());
  if (const cudaError_t error = enter(); error != cudaSuccess) return error;
  if (const cudaError_t error = check_shape(grid, block); error != cudaSuccess) return note(error);
  const int device = device_of(stream);
  if (device != current_device()) return note(cudaErrorInvalidResourceHandle);
  Runtime& state = runtime();
  const auto opted = state.dynamic_limits.find({device, kernel});
  const std::size_t dynamic_limit =
      opted != state.dynamic_limits.end() ? opted->second : kDefaultSharedBytes;
  if (dynamic_smem > std::max(dynamic_limit, kDefaultSharedBytes)) {
    return note(cudaErrorInvalidValue);
  }
  const std::size_t shared_limit =
      opted != state.dynamic_limits.end() ? options().smem_optin_bytes : kDefaultSharedBytes;
  if (!state.resources.empty()) {
    const auto known = state.resources.find(short_name(symbol_of(kernel)));
    const unsigned threads = block.x * block.y * block.z;
    if (known != state.resources.end() &&
        (threads > known->second.max_threads || threads * known->second.registers > kRegisters)) {
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

}  // namespace emu

using namespace emu;

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  return on_runtime([&] {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || static_cast<std::size_t>(value) > options().smem_optin_bytes) {
      return note(cudaErrorInvalidValue);
    }
    runtime().dynamic_limits[{current_device(), kernel}] = static_cast<std::size_t>(value);
    return cudaSuccess;
  });
}
