// Holds the stand-in of tests/cuda/emu to the toolkit: compiling this is the check that every
// constant has the toolkit's value and every function its type.
#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#define EMU_VALUES_ONLY
#define EMU_BEGIN(type) static_assert(std::is_enum_v<type>, #type);
#define EMU_VALUE(name, value) static_assert(static_cast<int>(name) == (value), #name);
#define EMU_END(type)
#define EMU_FLAG(name, value) static_assert((name) == (value), #name);
// Among the overloads of a name (the toolkit has templates beside some functions) the cast finds
// the one of exactly this type, or does not compile.
#define EMU_FUNCTION(result, name, parameters)                                                  \
  static_assert(                                                                                \
      std::is_same_v<decltype(static_cast<result(*) parameters>(&name)), result(*) parameters>, \
      #name);
#include "../emu/blas_api.inc"
#include "../emu/runtime_api.inc"

// The result of the heuristic query is read field by field.
static_assert(sizeof(cublasLtMatmulAlgo_t) == 64);
static_assert(
    std::is_same_v<decltype(cublasLtMatmulHeuristicResult_t::algo), cublasLtMatmulAlgo_t>);
static_assert(std::is_same_v<decltype(cublasLtMatmulHeuristicResult_t::state), cublasStatus_t>);
static_assert(
    std::is_same_v<decltype(cublasLtMatmulHeuristicResult_t::workspaceSize), std::size_t>);

// Fields of the device's properties that the stand-in has.
static_assert(std::is_same_v<decltype(cudaDeviceProp::name), char[256]>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::totalGlobalMem), std::size_t>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::sharedMemPerBlock), std::size_t>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::regsPerBlock), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::warpSize), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::maxThreadsPerBlock), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::major), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::minor), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::multiProcessorCount), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::l2CacheSize), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::memoryBusWidth), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::maxThreadsPerMultiProcessor), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::sharedMemPerMultiprocessor), std::size_t>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::sharedMemPerBlockOptin), std::size_t>);
