// The stand-in runtime and cuBLAS: what they compute, what they refuse and with which error, and
// that work nobody waited for is seen to be late.
#include <cublasLt.h>
#include <cublas_v2.h>

#include <cmath>
#include <thread>

#include "cuda_test.h"
#include "device.cuh"

namespace {

using terse::cuda::klaunch;
using terse::cuda_test::DeviceBuffer;
using terse::cuda_test::require;

emu::Options with(void (*change)(emu::Options&)) {
  emu::Options chosen;
  change(chosen);
  return chosen;
}

__global__ void add_to(int* value, int amount) {
  if (threadIdx.x == 0) *value += amount;
}

class Stream {
 public:
  Stream() { require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~Stream() { static_cast<void>(cudaStreamDestroy(stream_)); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

void copy_back(int* host, const int* device, cudaStream_t stream) {
  require(cudaMemcpyAsync(host, device, sizeof(int), cudaMemcpyDeviceToHost, stream));
}

// ---- Devices and memory

TEST_CASE("without a driver or a device each call says so and leaves its output alone") {
  int count = -7;
  {
    const emu::ScopedOptions scoped(with([](emu::Options& o) { o.driver = false; }));
    CHECK(cudaGetDeviceCount(&count) == cudaErrorInsufficientDriver);
    CHECK(cudaSetDevice(0) == cudaErrorInsufficientDriver);
  }
  {
    const emu::ScopedOptions scoped(with([](emu::Options& o) { o.device_count = 0; }));
    CHECK(cudaGetDeviceCount(&count) == cudaErrorNoDevice);
    void* memory = nullptr;
    CHECK(cudaMalloc(&memory, 16) == cudaErrorNoDevice);
  }
  CHECK(count == -7);
  CHECK(cudaGetLastError() == cudaErrorNoDevice);
  CHECK(cudaGetLastError() == cudaSuccess);
}

TEST_CASE("memory runs out, and comes back when freed") {
  const std::size_t before = emu::live_bytes();
  const emu::ScopedOptions scoped(with([](emu::Options& o) { o.memory_bytes = 1000; }));
  {
    const DeviceBuffer<unsigned char> most(900);
    void* memory = nullptr;
    CHECK(cudaMalloc(&memory, 101) == cudaErrorMemoryAllocation);
    CHECK(memory == nullptr);
    std::size_t free_bytes = 0, total_bytes = 0;
    require(cudaMemGetInfo(&free_bytes, &total_bytes));
    CHECK(free_bytes == 100);
    CHECK(total_bytes == 1000);
  }
  const DeviceBuffer<unsigned char> all(1000);
  CHECK(emu::live_bytes() == before + 1000);
  emu::fail_allocation(1);
  void* memory = nullptr;
  CHECK(cudaFree(nullptr) == cudaSuccess);
  const emu::ScopedOptions wide(emu::Options{});
  const DeviceBuffer<int> first(1);
  CHECK(cudaMalloc(&memory, 4) == cudaErrorMemoryAllocation);
  const DeviceBuffer<int> third(1);
}

TEST_CASE("copies are held to their direction and to the size of allocations") {
  const DeviceBuffer<int> device(std::vector<int>{1, 2, 3, 4});
  int host[5] = {};
  CHECK(cudaMemcpy(host, device.get(), 20, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(host, device.get(), 16, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(device.get(), host, 16, cudaMemcpyDeviceToDevice) == cudaErrorInvalidValue);
  CHECK(cudaMemset(device.get() + 1, 0, 16) == cudaErrorInvalidValue);
  // Two rows of one element each, three elements apart.
  CHECK(cudaMemcpy2D(host, 4, device.get(), 12, 4, 2, cudaMemcpyDeviceToHost) == cudaSuccess);
  CHECK(host[0] == 1);
  CHECK(host[1] == 4);
  CHECK(cudaMemcpy2D(host, 4, device.get(), 2, 4, 2, cudaMemcpyDeviceToHost) ==
        cudaErrorInvalidValue);
  require(cudaMemset(device.get(), 0, 8));
  CHECK(device.values() == std::vector<int>{0, 0, 3, 4});
}

TEST_CASE("a lost device fails every call until it is restored; memory can still be dropped") {
  const std::size_t before = emu::live_allocations();
  {
    const DeviceBuffer<int> device(1);
    emu::lose_device(0, cudaErrorLaunchFailure, 1);
    CHECK(cudaMemset(device.get(), 0, 4) == cudaSuccess);
    CHECK(cudaMemset(device.get(), 0, 4) == cudaErrorLaunchFailure);
    CHECK(cudaDeviceSynchronize() == cudaErrorLaunchFailure);
    CHECK_THROWS_AS(klaunch(add_to, 1, 32, 0, nullptr, device.get(), 1), terse::Error);
  }
  CHECK(emu::live_allocations() == before);
  emu::restore_device(0);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  static_cast<void>(cudaGetLastError());
}

TEST_CASE("a device's memory, streams and opt-ins are its own") {
  const emu::ScopedOptions scoped(with([](emu::Options& o) { o.device_count = 2; }));
  require(cudaSetDevice(0));
  const DeviceBuffer<int> on_first(std::vector<int>{1});
  const Stream first;
  require(cudaSetDevice(1));
  const Stream second;
  CHECK_THROWS_AS(klaunch(add_to, 1, 32, 0, second, on_first.get(), 1), emu::Fault);
  CHECK_THROWS_AS(klaunch(add_to, 1, 32, 0, first, on_first.get(), 1), terse::Error);
  // Each host thread has a current device, at first device 0.
  int device = -1;
  std::thread([&] { require(cudaGetDevice(&device)); }).join();
  CHECK(device == 0);
  CHECK(cudaSetDevice(2) == cudaErrorInvalidDevice);
  require(cudaSetDevice(0));
  klaunch(add_to, 1, 32, 0, first, on_first.get(), 1);
  CHECK(on_first.values()[0] == 2);
  static_cast<void>(cudaGetLastError());
}

// ---- Launches

}  // namespace

namespace terse::cuda {

// Has a symbol, by which the table of resources knows it.
template <class T, int N>
__global__ void known_kernel(T*) {}

}  // namespace terse::cuda

namespace {

TEST_CASE("a block takes no more threads than its bound, nor registers than there are") {
  const auto launch = [](unsigned threads) {
    klaunch(terse::cuda::known_kernel<terse::bf16, 8>, 1, threads, 0, nullptr, nullptr);
  };
  launch(1024);
  emu::set_resources("known_kernel<bf16, 8>", {512, 64});
  launch(512);
  CHECK_THROWS_AS(launch(513), terse::Error);
  CHECK(cudaGetLastError() == cudaErrorLaunchOutOfResources);
  emu::set_resources("known_kernel<bf16, 8>", {512, 160});
  launch(384);
  CHECK_THROWS_AS(launch(416), terse::Error);
  CHECK(cudaGetLastError() == cudaErrorLaunchOutOfResources);
}

__global__ void nothing() {}

TEST_CASE("launches beyond what a device takes are refused") {
  const auto status = [](dim3 grid, dim3 block, std::size_t smem) {
    try {
      klaunch(nothing, grid, block, smem, nullptr);
    } catch (const terse::Error& error) {
      CHECK(error.error_class() == terse::ErrorClass::device);
    }
    return cudaGetLastError();
  };
  CHECK(status(1, 32, 0) == cudaSuccess);
  CHECK(status(1, 1024, 0) == cudaSuccess);
  CHECK(status(1, 1025, 0) == cudaErrorInvalidConfiguration);
  CHECK(status(1, dim3(1, 1, 65), 0) == cudaErrorInvalidConfiguration);
  CHECK(status(dim3(1, 65536), 1, 0) == cudaErrorInvalidConfiguration);
  CHECK(status(dim3(1, 1, 65536), 1, 0) == cudaErrorInvalidConfiguration);
  CHECK(status(0, 32, 0) == cudaErrorInvalidConfiguration);
  CHECK(status(1, 0, 0) == cudaErrorInvalidConfiguration);
  CHECK(status(1, 32, 49153) == cudaErrorInvalidValue);
  terse::cuda::allow_dynamic_smem(nothing, 50000);
  CHECK(status(1, 32, 50000) == cudaSuccess);
  CHECK(status(1, 32, 50001) == cudaErrorInvalidValue);
  CHECK_THROWS_AS(terse::cuda::allow_dynamic_smem(nothing, 228 * 1024), terse::Error);
  static_cast<void>(cudaGetLastError());
}

// ---- Streams, events, graphs

TEST_CASE("deferred work is done when something waits for it") {
  const emu::ScopedOptions scoped(with([](emu::Options& o) { o.deferred_streams = true; }));
  const DeviceBuffer<int> value(std::vector<int>{1});
  int host = 0;
  const Stream stream;
  klaunch(add_to, 1, 32, 0, stream, value.get(), 4);
  copy_back(&host, value.get(), stream);
  CHECK(host == 0);
  require(cudaStreamSynchronize(stream));
  CHECK(host == 5);

  // Another stream sees the work only if it waits for the event; an event from before is too early.
  const Stream other;
  cudaEvent_t early = nullptr, late = nullptr;
  require(cudaEventCreateWithFlags(&early, cudaEventDisableTiming));
  require(cudaEventCreateWithFlags(&late, cudaEventDisableTiming));
  require(cudaEventRecord(early, stream));
  klaunch(add_to, 1, 32, 0, stream, value.get(), 10);
  require(cudaEventRecord(late, stream));
  require(cudaStreamWaitEvent(other, early, 0));
  copy_back(&host, value.get(), other);
  require(cudaStreamSynchronize(other));
  CHECK(host == 5);
  require(cudaStreamWaitEvent(other, late, 0));
  copy_back(&host, value.get(), other);
  require(cudaStreamSynchronize(other));
  CHECK(host == 15);
  CHECK(cudaEventQuery(late) == cudaSuccess);
  require(cudaEventDestroy(early));
  require(cudaEventDestroy(late));
}

TEST_CASE("a captured graph runs nothing until it is launched, then each time") {
  for (const bool deferred : {false, true}) {
    emu::Options chosen;
    chosen.deferred_streams = deferred;
    const emu::ScopedOptions scoped(chosen);
    const DeviceBuffer<int> value(std::vector<int>{0});
    int host = -1;
    const Stream stream;
    require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    klaunch(add_to, 1, 32, 0, stream, value.get(), 3);
    klaunch(add_to, 1, 32, 0, stream, value.get(), 4);
    copy_back(&host, value.get(), stream);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    require(cudaStreamEndCapture(stream, &graph));
    require(cudaGraphInstantiate(&exec, graph, 0));
    require(cudaGraphDestroy(graph));
    require(cudaStreamSynchronize(stream));
    CHECK(host == -1);
    for (int times = 1; times <= 3; ++times) {
      require(cudaGraphLaunch(exec, stream));
      require(cudaStreamSynchronize(stream));
      CHECK(host == 7 * times);
    }
    require(cudaGraphExecDestroy(exec));
  }
}

TEST_CASE("a call that waits or allocates spoils a capture") {
  const Stream stream;
  require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  void* memory = nullptr;
  CHECK(cudaMalloc(&memory, 4) == cudaErrorStreamCaptureUnsupported);
  cudaGraph_t graph = nullptr;
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);
  CHECK(graph == nullptr);
  static_cast<void>(cudaGetLastError());
}

TEST_CASE("a capture of its thread alone is not spoiled by what other threads do") {
  const Stream stream;
  for (const auto mode : {cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeGlobal}) {
    require(cudaStreamBeginCapture(stream, mode));
    std::thread([mode] {
      void* memory = nullptr;
      const bool local = mode == cudaStreamCaptureModeThreadLocal;
      CHECK(cudaMalloc(&memory, 4) == (local ? cudaSuccess : cudaErrorStreamCaptureUnsupported));
      CHECK(cudaFree(memory) == cudaSuccess);
    }).join();
    cudaGraph_t graph = nullptr;
    const bool kept = cudaStreamEndCapture(stream, &graph) == cudaSuccess;
    CHECK(kept == (mode == cudaStreamCaptureModeThreadLocal));
    if (kept) require(cudaGraphDestroy(graph));
  }
  static_cast<void>(cudaGetLastError());
}

TEST_CASE("kernels of every device reach pinned memory, copies take it for the host's") {
  const emu::ScopedOptions scoped(with([](emu::Options& o) { o.device_count = 2; }));
  void* pinned = nullptr;
  const std::size_t before = emu::live_allocations();
  require(cudaMallocHost(&pinned, sizeof(int)));
  CHECK(emu::live_allocations() == before + 1);
  int* const value = static_cast<int*>(pinned);
  *value = 1;
  for (const int device : {0, 1}) {
    require(cudaSetDevice(device));
    {
      const Stream stream;
      klaunch(add_to, 1, 32, 0, stream, value, 5);
      require(cudaStreamSynchronize(stream));
    }
    const DeviceBuffer<int> copy(1);
    require(cudaMemcpy(copy.get(), value, sizeof(int), cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(copy.get(), value, sizeof(int), cudaMemcpyDeviceToDevice) ==
          cudaErrorInvalidValue);
    CHECK(copy.values() == std::vector<int>{*value});
  }
  require(cudaSetDevice(0));
  CHECK(*value == 11);
  require(cudaFreeHost(pinned));
  CHECK(emu::live_allocations() == before);
  static_cast<void>(cudaGetLastError());
}

// ---- cuBLAS

// A matrix held column by column, `leading` elements apart.
struct Matrix {
  int rows, columns, leading;
  std::vector<float> values;

  Matrix(int row_count, int column_count, int leading_dimension, unsigned seed)
      : rows(row_count), columns(column_count), leading(leading_dimension) {
    // Multiples of 1/8 up to 2: exact in every type, and so are the sums of the tests.
    for (int i = 0; i < (column_count - 1) * leading_dimension + row_count; ++i) {
      seed = seed * 1664525U + 1013904223U;
      values.push_back(static_cast<float>(static_cast<int>(seed >> 24) % 33 - 16) / 8);
    }
  }
  double at(int row, int column) const {
    return values[static_cast<std::size_t>(column * leading + row)];
  }
};

template <class T>
std::vector<T> stored(const std::vector<float>& values) {
  std::vector<T> out;
  for (const float value : values) out.push_back(terse::cuda::from_float<T>(value));
  return out;
}

template <class T>
constexpr cudaDataType kBlasType = std::is_same_v<T, float>        ? CUDA_R_32F
                                   : std::is_same_v<T, terse::f16> ? CUDA_R_16F
                                                                   : CUDA_R_16BF;

// Every pair of transpositions, with leading dimensions beyond the rows, alpha and beta.
template <class T>
void check_gemm() {
  constexpr int kM = 5, kN = 4, kK = 7;
  cublasHandle_t blas = nullptr;
  REQUIRE(cublasCreate(&blas) == CUBLAS_STATUS_SUCCESS);
  for (const bool transpose_a : {false, true}) {
    for (const bool transpose_b : {false, true}) {
      const Matrix a(transpose_a ? kK : kM, transpose_a ? kM : kK, 9, 1);
      const Matrix b(transpose_b ? kN : kK, transpose_b ? kK : kN, 8, 2);
      const Matrix c(kM, kN, 6, 3);
      const DeviceBuffer<T> a_device(stored<T>(a.values)), b_device(stored<T>(b.values));
      const DeviceBuffer<float> c_device(c.values);
      const float alpha = 2, beta = 0.5f;
      CHECK(cublasGemmEx(blas, transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N,
                         transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N, kM, kN, kK, &alpha,
                         a_device.get(), kBlasType<T>, a.leading, b_device.get(), kBlasType<T>,
                         b.leading, &beta, c_device.get(), CUDA_R_32F, c.leading,
                         CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_SUCCESS);
      const std::vector<float> result = c_device.values();
      for (int column = 0; column < kN; ++column) {
        for (int row = 0; row < kM; ++row) {
          double expected = 0.5 * c.at(row, column);
          for (int k = 0; k < kK; ++k) {
            expected += 2 * (transpose_a ? a.at(k, row) : a.at(row, k)) *
                        (transpose_b ? b.at(column, k) : b.at(k, column));
          }
          CHECK(result[static_cast<std::size_t>(column * c.leading + row)] == expected);
        }
      }
    }
  }
  CHECK(cublasDestroy(blas) == CUBLAS_STATUS_SUCCESS);
}

TEST_CASE("GemmEx multiplies column-major matrices of each type") {
  check_gemm<float>();
  check_gemm<terse::f16>();
  check_gemm<terse::bf16>();
}

TEST_CASE("batches are strides apart; beta zero does not read C") {
  cublasHandle_t blas = nullptr;
  REQUIRE(cublasCreate(&blas) == CUBLAS_STATUS_SUCCESS);
  // Batch i: (i + 1) times the column (1, 2), by the row (3).
  const DeviceBuffer<float> a(std::vector<float>{1, 2, 0, 2, 4, 0, 3, 6});
  const DeviceBuffer<float> b(std::vector<float>{3, 3, 3});
  const DeviceBuffer<float> c(6);
  const float one = 1, zero = 0;
  CHECK(cublasGemmStridedBatchedEx(blas, CUBLAS_OP_N, CUBLAS_OP_N, 2, 1, 1, &one, a.get(),
                                   CUDA_R_32F, 2, 3, b.get(), CUDA_R_32F, 1, 1, &zero, c.get(),
                                   CUDA_R_32F, 2, 2, 3, CUBLAS_COMPUTE_32F,
                                   CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_SUCCESS);
  CHECK(c.values() == std::vector<float>{3, 6, 6, 12, 9, 18});
  CHECK(cublasGemmEx(blas, CUBLAS_OP_N, CUBLAS_OP_N, 2, 1, 1, &one, a.get(), CUDA_R_32F, 1, b.get(),
                     CUDA_R_32F, 1, &zero, c.get(), CUDA_R_32F, 2, CUBLAS_COMPUTE_32F,
                     CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(cublasGemmEx(blas, CUBLAS_OP_N, CUBLAS_OP_N, 2, 1, 1, &one, a.get(), CUDA_R_32F, 2, b.get(),
                     CUDA_R_16BF, 1, &zero, c.get(), CUDA_R_32F, 2, CUBLAS_COMPUTE_32F,
                     CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_NOT_SUPPORTED);
  CHECK(cublasDestroy(blas) == CUBLAS_STATUS_SUCCESS);
}

TEST_CASE("cublasLt adds a bias and applies GELU or ReLU") {
  cublasLtHandle_t blas = nullptr;
  REQUIRE(cublasLtCreate(&blas) == CUBLAS_STATUS_SUCCESS);
  const DeviceBuffer<float> a(std::vector<float>{1, -1});    // (2, 1)
  const DeviceBuffer<float> b(std::vector<float>{0.5f, 2});  // (1, 2)
  const DeviceBuffer<float> bias(std::vector<float>{0.25f, 0.75f});
  const auto run = [&](cublasLtEpilogue_t epilogue) {
    const DeviceBuffer<float> d(4);
    cublasLtMatmulDesc_t desc = nullptr;
    cublasLtMatrixLayout_t a_layout = nullptr, b_layout = nullptr, d_layout = nullptr;
    CHECK(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS);
    CHECK(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                         sizeof(epilogue)) == CUBLAS_STATUS_SUCCESS);
    const float* const bias_pointer = bias.get();
    CHECK(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias_pointer,
                                         sizeof(bias_pointer)) == CUBLAS_STATUS_SUCCESS);
    CHECK(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, 1) ==
          CUBLAS_STATUS_INVALID_VALUE);
    CHECK(cublasLtMatrixLayoutCreate(&a_layout, CUDA_R_32F, 2, 1, 2) == CUBLAS_STATUS_SUCCESS);
    CHECK(cublasLtMatrixLayoutCreate(&b_layout, CUDA_R_32F, 1, 2, 1) == CUBLAS_STATUS_SUCCESS);
    CHECK(cublasLtMatrixLayoutCreate(&d_layout, CUDA_R_32F, 2, 2, 2) == CUBLAS_STATUS_SUCCESS);
    const float one = 1, zero = 0;
    CHECK(cublasLtMatmul(blas, desc, &one, a.get(), a_layout, b.get(), b_layout, &zero, d.get(),
                         d_layout, d.get(), d_layout, nullptr, nullptr, 0,
                         nullptr) == CUBLAS_STATUS_SUCCESS);
    for (const cublasLtMatrixLayout_t layout : {a_layout, b_layout, d_layout}) {
      CHECK(cublasLtMatrixLayoutDestroy(layout) == CUBLAS_STATUS_SUCCESS);
    }
    CHECK(cublasLtMatmulDescDestroy(desc) == CUBLAS_STATUS_SUCCESS);
    return d.values();
  };
  const std::vector<float> plain = {0.5f, -0.5f, 2, -2};
  const std::vector<float> biased = {0.75f, 0.25f, 2.25f, -1.25f};
  CHECK(run(CUBLASLT_EPILOGUE_DEFAULT) == plain);
  CHECK(run(CUBLASLT_EPILOGUE_BIAS) == biased);
  CHECK(run(CUBLASLT_EPILOGUE_RELU_BIAS) == std::vector<float>{0.75f, 0.25f, 2.25f, 0});
  const std::vector<float> gelu = run(CUBLASLT_EPILOGUE_GELU_BIAS);
  for (std::size_t i = 0; i < gelu.size(); ++i) {
    // The tanh form, which is what frameworks use the epilogue for; f32 against f64.
    const double x = biased[i];
    const double expected =
        0.5 * x *
        (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    CHECK(std::abs(gelu[i] - expected) <= 4 * 0x1p-24 * (1 + std::abs(x)));
  }
  CHECK(cublasLtDestroy(blas) == CUBLAS_STATUS_SUCCESS);
}

}  // namespace
