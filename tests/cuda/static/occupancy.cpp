// Blocks of a kernel that fit on a multiprocessor at once, by the toolkit's own calculator; no
// device is needed. Reads lines "architecture threads registers static_bytes dynamic_bytes"
// (architecture 80 or 90) and prints one number for each.
#include <cuda_occupancy.h>

#include <climits>
#include <iostream>

namespace {

// Limits of an architecture. Source: CUDA C++ Programming Guide, table of technical specifications
// by compute capability.
bool properties_of(int architecture, cudaOccDeviceProp& properties) {
  if (architecture != 80 && architecture != 90) return false;
  const bool ampere = architecture == 80;
  properties.computeMajor = architecture / 10;
  properties.computeMinor = architecture % 10;
  properties.maxThreadsPerBlock = 1024;
  properties.maxThreadsPerMultiprocessor = 2048;
  properties.regsPerBlock = 65536;
  properties.regsPerMultiprocessor = 65536;
  properties.warpSize = 32;
  properties.sharedMemPerBlock = 48 << 10;
  properties.sharedMemPerMultiprocessor = static_cast<std::size_t>(ampere ? 164 : 228) << 10;
  properties.sharedMemPerBlockOptin = static_cast<std::size_t>(ampere ? 163 : 227) << 10;
  properties.reservedSharedMemPerBlock = 1 << 10;
  properties.numSms = ampere ? 108 : 132;  // A100, H100; changes no result
  return true;
}

}  // namespace

int main() {
  int architecture = 0;
  int threads = 0;
  int registers = 0;
  std::size_t static_bytes = 0;
  std::size_t dynamic_bytes = 0;
  while (std::cin >> architecture >> threads >> registers >> static_bytes >> dynamic_bytes) {
    cudaOccDeviceProp properties;
    cudaOccFuncAttributes attributes;
    attributes.maxThreadsPerBlock = INT_MAX;
    attributes.numRegs = registers;
    attributes.sharedSizeBytes = static_bytes;
    attributes.partitionedGCConfig = PARTITIONED_GC_OFF;
    attributes.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    attributes.maxDynamicSharedSizeBytes = dynamic_bytes;
    attributes.numBlockBarriers = 1;
    const cudaOccDeviceState state;
    cudaOccResult result;
    if (!properties_of(architecture, properties) ||
        cudaOccMaxActiveBlocksPerMultiprocessor(&result, &properties, &attributes, &state, threads,
                                                dynamic_bytes) != CUDA_OCC_SUCCESS) {
      std::cerr << "occupancy: unknown architecture or impossible block\n";
      return 1;
    }
    std::cout << result.activeBlocksPerMultiprocessor << "\n";
  }
  return std::cin.eof() ? 0 : 1;
}
