// The CUDA side of include/terse/ops/cuda.h: devices, memory, queues and the launch of every
// kernel. The only file that nvcc compiles, and that the emulation of tests/cuda compiles in its
// place.
#include <cublasLt.h>
#include <cuda_runtime.h>

#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "activation.cuh"
#include "attention.cuh"
#include "device.cuh"
#include "embedding.cuh"
#include "head.cuh"
#include "linear.cuh"
#include "norm.cuh"
#include "terse/checked.h"
#include "terse/ops/cuda.h"
#include "token_compression.cuh"

namespace terse::cuda {

namespace {

void check_blas(cublasStatus_t status, const char* what) {
  terse::check(status == CUBLAS_STATUS_SUCCESS, ErrorClass::device, what, ": ",
               std::string(cublasLtGetStatusName(status)));
}

// Objects of cuBLAS, each destroyed by its own function.
template <class T, cublasStatus_t (*DESTROY)(T)>
class BlasObject {
 public:
  BlasObject() = default;
  ~BlasObject() {
    if (object_ != nullptr) DESTROY(object_);
  }
  BlasObject(BlasObject&& other) noexcept { std::swap(object_, other.object_); }
  BlasObject& operator=(BlasObject&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  T get() const { return object_; }
  T* out() { return &object_; }

 private:
  T object_ = nullptr;
};
using BlasHandle = BlasObject<cublasLtHandle_t, cublasLtDestroy>;
using BlasProduct = BlasObject<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using BlasLayout = BlasObject<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using BlasPreference = BlasObject<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

cudaDataType_t blas_type(std::int64_t type) {
  if (type == static_cast<std::int64_t>(DType::bf16)) return CUDA_R_16BF;
  if (type == static_cast<std::int64_t>(DType::f16)) return CUDA_R_16F;
  return CUDA_R_32F;
}

BlasLayout make_layout(std::int64_t type, std::int64_t rows, std::int64_t columns) {
  BlasLayout layout;
  check_blas(
      cublasLtMatrixLayoutCreate(layout.out(), blas_type(type), static_cast<std::uint64_t>(rows),
                                 static_cast<std::uint64_t>(columns), rows),
      "layout of a matrix");
  return layout;
}

// f.template operator()<T>() with the type of operands.
template <class F>
void with_type(std::int64_t type, F&& f) {
  if (type == static_cast<std::int64_t>(DType::bf16)) {
    f.template operator()<bf16>();
  } else if (type == static_cast<std::int64_t>(DType::f16)) {
    f.template operator()<f16>();
  } else {
    f.template operator()<float>();
  }
}

// f.template operator()<N>() with the number of elements that a thread takes at once: N where every
// row starts at a multiple of it, else 1.
template <int N, class F>
void with_width(std::int64_t width, F&& f) {
  if (width % N == 0) {
    f.template operator()<N>();
  } else {
    f.template operator()<1>();
  }
}

dim3 row_grid(std::int32_t rows) { return dim3(static_cast<unsigned>(rows)); }

std::size_t row_bytes(std::int32_t width) {
  return static_cast<std::size_t>(width) * sizeof(float);
}

// Blocks of kElementThreads threads with `each` elements a thread.
dim3 element_grid(std::int64_t elements, int each) {
  const std::int64_t block = std::int64_t{kElementThreads} * each;
  return dim3(static_cast<unsigned>((elements + block - 1) / block));
}

}  // namespace

// --- devices and memory --------------------------------------------------------------------------

std::vector<DeviceProperties> find_devices() {
  int count = 0;
  check(cudaGetDeviceCount(&count), "no CUDA device");
  std::vector<DeviceProperties> devices;
  for (int device = 0; device < count; ++device) {
    cudaDeviceProp found = {};
    check(cudaGetDeviceProperties(&found, device), "properties of a device");
    terse::check(found.major >= 8, ErrorClass::device, "device ", device,
                 " is of compute capability ", found.major, ".", found.minor,
                 ", expected 8.0 or later");
    devices.push_back({found.name, found.major, found.minor, found.totalGlobalMem});
  }
  terse::check(!devices.empty(), ErrorClass::device, "no CUDA device");
  return devices;
}

Versions versions() {
  Versions found;
  if (cudaRuntimeGetVersion(&found.runtime) != cudaSuccess) found.runtime = 0;
  if (cudaDriverGetVersion(&found.driver) != cudaSuccess) found.driver = 0;
  return found;
}

Memory::Memory(int device, std::size_t bytes) : device_(device), bytes_(bytes) {
  if (bytes == 0) return;
  if (device == kHost) {
    check(cudaMallocHost(&data_, bytes), "pinned memory");
    return;
  }
  check(cudaSetDevice(device), "choice of a device");
  const cudaError_t status = cudaMalloc(&data_, bytes);
  if (status != cudaSuccess) {
    cudaGetLastError();  // so that the next call does not report it again
    data_ = nullptr;
    fail(ErrorClass::device, "device ", device, ": ", bytes,
         " bytes of memory: ", std::string(cudaGetErrorString(status)));
  }
}

Memory::~Memory() {
  if (data_ == nullptr) return;
  // Nobody can be told of a failure here; memory of a lost device is gone anyway.
  if (device_ == kHost) {
    static_cast<void>(cudaFreeHost(data_));
  } else {
    static_cast<void>(cudaSetDevice(device_));
    static_cast<void>(cudaFree(data_));
  }
}

void Memory::upload(const void* from, std::size_t bytes, std::size_t offset) const {
  if (bytes == 0) return;
  terse::check(offset + bytes <= bytes_, ErrorClass::limit, "upload past the end of memory");
  check(cudaSetDevice(device_), "choice of a device");
  check(cudaMemcpy(as<std::byte>() + offset, from, bytes, cudaMemcpyHostToDevice), "upload");
}

// --- a queue -------------------------------------------------------------------------------------

// How a product of one shape is multiplied, whatever the number of rows.
struct ProductPlan {
  BlasProduct description;
  cublasLtMatmulAlgo_t algorithm = {};
  bool ends_inside = false;  // bias and activation are cuBLAS's, not a kernel's
};

// The epilogue of cuBLASLt that is what a product ends with, or none. It has two activations, and
// neither is ours: its GELU, the one by tanh, loses digits (on an H200 3e-6 at -3.3, where the
// result is -1e-3), and its ReLU makes 0 of a NaN, which has to stay one.
std::optional<cublasLtEpilogue_t> epilogue_of(const ProductStep& step) {
  if (step.activation != 0) return std::nullopt;
  return step.bias != nullptr ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

template <class T>
void set(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check_blas(cublasLtMatmulDescSetAttribute(product, attribute, &value, sizeof(value)), "product");
}

BlasProduct make_product(const ProductStep& step, cublasLtEpilogue_t epilogue) {
  BlasProduct product;
  check_blas(cublasLtMatmulDescCreate(product.out(), CUBLAS_COMPUTE_32F, CUDA_R_32F), "product");
  set(product.get(), CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  set(product.get(), CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
  if ((epilogue & CUBLASLT_EPILOGUE_BIAS) != 0) {
    set(product.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, step.rounded_bias);
  }
  return product;
}

struct Queue::Implementation {
  static constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;
  static constexpr std::size_t kMaxGraphs = 64;
  // Rows that algorithms are chosen for: many, as where speed matters most. The choice then holds
  // for every number of rows, so that a row's sums are taken in one order however many come along.
  static constexpr std::int64_t kPlannedRows = 4096;

  struct Graph {
    cudaGraphExec_t exec = nullptr;
  };

  explicit Implementation(int on_device) : device(on_device) {
    check(cudaSetDevice(device), "choice of a device");
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
    check_blas(cublasLtCreate(blas.out()), "cuBLAS");
    workspace = Memory(device, kWorkspaceBytes);
    int most_shared = 0;
    check(cudaDeviceGetAttribute(&most_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
          "shared memory of a device");
    const std::size_t wanted = sizeof(bf16) * kTensorElements<256, 32, 1>;
    wide_attention = static_cast<std::size_t>(most_shared) >= wanted;
    if (wide_attention) {
      allow_dynamic_smem(attention_mma_kernel<bf16, 256, 32, 1>, wanted);
      allow_dynamic_smem(attention_mma_kernel<f16, 256, 32, 1>, wanted);
    }
  }

  // Nobody can be told of a failure here. What belongs to a lost device is given back all the same:
  // the host's part of it is freed.
  ~Implementation() {
    static_cast<void>(cudaSetDevice(device));
    if (stream == nullptr) return;
    static_cast<void>(cudaStreamSynchronize(stream));
    forget_graphs();
    static_cast<void>(cudaStreamDestroy(stream));
  }

  void forget_graphs() {
    for (auto& entry : graphs) {
      if (entry.second.exec == nullptr) continue;
      static_cast<void>(cudaGraphExecDestroy(entry.second.exec));
    }
    graphs.clear();
  }

  // --- the steps ---------------------------------------------------------------------------------

  void run(const CopyStep& step) {
    check(cudaMemcpyAsync(step.to, step.from, step.bytes,
                          step.to_device != 0 ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost,
                          stream),
          "copy");
  }

  void run(const ClearStep& step) {
    check(cudaMemsetAsync(step.to, 0, step.bytes, stream), "clearing of memory");
  }

  // Row-major y = x w^T is column-major y^T = w x^T with w transposed.
  void run(const ProductStep& step) {
    const ProductPlan& plan = plan_of(step);
    const BlasLayout w = make_layout(step.type, step.width, step.columns);
    const BlasLayout x = make_layout(step.type, step.width, step.rows);
    const BlasLayout y = make_layout(step.out_type, step.columns, step.rows);
    const float one = 1, zero = 0;
    if (plan.ends_inside && step.bias != nullptr) {  // layers of one shape share the plan
      set(plan.description.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, step.rounded_bias);
    }
    check_blas(cublasLtMatmul(blas.get(), plan.description.get(), &one, step.w, w.get(), step.x,
                              x.get(), &zero, step.y, y.get(), step.y, y.get(), &plan.algorithm,
                              workspace.data(), workspace.size(), stream),
               "product");
    if (!plan.ends_inside) activate(step);
  }

  // In place.
  void activate(const ProductStep& product) {
    ActivateStep step;
    step.product = step.out = product.y;
    step.bias = product.bias;
    step.rows = product.rows;
    step.columns = static_cast<std::int32_t>(product.columns);
    step.activation = static_cast<std::int32_t>(product.activation);
    step.type = product.out_type;
    run(step);
  }

  // With the epilogue if there is one and cuBLAS has an algorithm with it, else plain.
  const ProductPlan& plan_of(const ProductStep& step) {
    ProductPlan& plan = plans[{step.type, step.out_type, step.columns, step.width, step.activation,
                               step.bias != nullptr ? 1 : 0}];
    if (plan.description.get() != nullptr) return plan;
    if (const std::optional<cublasLtEpilogue_t> epilogue = epilogue_of(step)) {
      plan.ends_inside = choose_algorithm(step, make_product(step, *epilogue), plan);
    }
    terse::check(plan.ends_inside ||
                     choose_algorithm(step, make_product(step, CUBLASLT_EPILOGUE_DEFAULT), plan),
                 ErrorClass::device, "cuBLAS has no algorithm for (", step.columns, ", ",
                 step.width, ")");
    return plan;
  }

  // Whether there is one; the product is then the plan's.
  bool choose_algorithm(const ProductStep& step, BlasProduct product, ProductPlan& plan) {
    BlasPreference preference;
    check_blas(cublasLtMatmulPreferenceCreate(preference.out()), "preference");
    const std::size_t workspace_bytes = workspace.size();
    check_blas(cublasLtMatmulPreferenceSetAttribute(preference.get(),
                                                    CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                    &workspace_bytes, sizeof(workspace_bytes)),
               "preference");
    // No sum is split over k: its parts would be joined in an order that the number of rows
    // decides.
    const std::uint32_t no_reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
    check_blas(cublasLtMatmulPreferenceSetAttribute(preference.get(),
                                                    CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                    &no_reduction, sizeof(no_reduction)),
               "preference");
    const BlasLayout w = make_layout(step.type, step.width, step.columns);
    const BlasLayout x = make_layout(step.type, step.width, kPlannedRows);
    const BlasLayout y = make_layout(step.out_type, step.columns, kPlannedRows);
    cublasLtMatmulHeuristicResult_t found = {};
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(blas.get(), product.get(), w.get(), x.get(), y.get(),
                                       y.get(), preference.get(), 1, &found, &count);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED) return false;
    check_blas(status, "choice of an algorithm");
    if (count == 0) return false;
    plan.algorithm = found.algo;
    plan.description = std::move(product);
    return true;
  }

  void run(const EmbedStep& step) {
    with_type(step.type, [&]<class T>() {
      with_width<4>(step.width, [&]<int N>() {
        klaunch(embed_kernel<T, N>, row_grid(step.rows), kRowThreads, row_bytes(step.width), stream,
                step);
      });
    });
  }

  void run(const AddNormStep& step) {
    with_type(step.type, [&]<class T>() {
      with_width<4>(step.width, [&]<int N>() {
        klaunch(add_norm_kernel<T, N>, row_grid(step.rows), kRowThreads, row_bytes(step.width),
                stream, step);
      });
    });
  }

  void run(const ActivateStep& step) {
    with_type(step.type, [&]<class T>() {
      with_width<16 / sizeof(T)>(step.columns, [&]<int N>() {
        klaunch(activation_kernel<T, N>,
                element_grid(step.rows * step.columns, kActivationUnits * N), kElementThreads, 0,
                stream, step);
      });
    });
  }

  void run(const GateStep& step) {
    with_type(step.type, [&]<class T>() {
      with_width<16 / sizeof(T)>(step.columns, [&]<int N>() {
        klaunch(gated_kernel<T, N>, element_grid(step.rows * step.columns, N), kElementThreads, 0,
                stream, step);
      });
    });
  }

  void run(const TurnHeadsStep& step) {
    with_type(step.type, [&]<class T>() {
      // Half a head, and so a whole one, is a multiple of N.
      with_width<8>(step.head_dim, [&]<int N>() {
        klaunch(turn_heads_kernel < T, N == 8 ? 4 : 1 >, row_grid(step.rows), kRowThreads, 0,
                stream, step);
      });
    });
  }

  void run(const AttendStep& step) {
    const dim3 grid(static_cast<unsigned>(step.num_tiles),
                    static_cast<unsigned>(step.heads / step.packed));
    const bool tall = step.tile_rows == kTensorTileRows<2>;
    switch (step.padded_dim) {
      case 32:
        return tall ? attend<32, 32, 32, 64, 2>(step, grid) : attend<32, 32, 32, 64, 1>(step, grid);
      case 64:
        return tall ? attend<64, 32, 32, 64, 2>(step, grid) : attend<64, 32, 32, 64, 1>(step, grid);
      case 128:
        return attend<128, 32, 32, 64, 1>(step, grid);
      default:
        return wide_attention ? attend<256, 16, 16, 32, 1>(step, grid)
                              : attend<256, 16, 16, 16, 1>(step, grid);
    }
  }

  // D head size; M rows and N keys in f32; for tensor cores TENSOR_N keys and TENSOR_M times 16
  // rows a warp.
  template <int D, int M, int N, int TENSOR_N, int TENSOR_M>
  void attend(const AttendStep& step, dim3 grid) {
    with_type(step.type, [&]<class T>() {
      if constexpr (std::is_same_v<T, float>) {
        klaunch(attention_f32_kernel<D, M, N>, grid, 4 * M, 0, stream, step);
      } else {
        klaunch(attention_mma_kernel<T, D, TENSOR_N, TENSOR_M>, grid, kTensorThreads,
                sizeof(T) * kTensorElements<D, TENSOR_N, TENSOR_M>, stream, step);
      }
    });
  }

  void run(const MeanRowsStep& step) {
    with_width<4>(step.width, [&]<int N>() {
      klaunch(mean_rows_kernel<N>, row_grid(step.rows), kRowThreads, 0, stream, step);
    });
  }

  void run(const FinishHeadStep& step) {
    with_width<4>(step.columns % 4 == 0 ? step.kept : 1, [&]<int N>() {
      klaunch(finish_head_kernel<N>, row_grid(step.rows), kRowThreads, row_bytes(step.kept), stream,
              step);
    });
  }

  // --- programs ----------------------------------------------------------------------------------

  template <class Step>
  void run_bytes(const char* bytes) {
    Step step;
    std::memcpy(&step, bytes, sizeof(Step));
    run(step);
  }

  // One step after the other; each stands behind its kind and its size.
  void run_program(std::string_view steps) {
    while (!steps.empty()) {
      std::int64_t head[2];
      std::memcpy(head, steps.data(), sizeof(head));
      const char* step = steps.data() + sizeof(head);
      switch (static_cast<StepKind>(head[0])) {
        case StepKind::copy:
          run_bytes<CopyStep>(step);
          break;
        case StepKind::clear:
          run_bytes<ClearStep>(step);
          break;
        case StepKind::product:
          run_bytes<ProductStep>(step);
          break;
        case StepKind::embed:
          run_bytes<EmbedStep>(step);
          break;
        case StepKind::add_norm:
          run_bytes<AddNormStep>(step);
          break;
        case StepKind::activate:
          run_bytes<ActivateStep>(step);
          break;
        case StepKind::gate:
          run_bytes<GateStep>(step);
          break;
        case StepKind::turn_heads:
          run_bytes<TurnHeadsStep>(step);
          break;
        case StepKind::attend:
          run_bytes<AttendStep>(step);
          break;
        case StepKind::mean_rows:
          run_bytes<MeanRowsStep>(step);
          break;
        case StepKind::finish_head:
          run_bytes<FinishHeadStep>(step);
          break;
      }
      steps.remove_prefix(sizeof(head) + static_cast<std::size_t>(head[1]));
    }
  }

  // A program's first run is launch by launch, which also plans its products; the second is
  // captured; then it is replayed.
  void flush() {
    if (program.empty()) return;
    check(cudaSetDevice(device), "choice of a device");
    if (graphs.size() >= kMaxGraphs && graphs.find(program) == graphs.end()) forget_graphs();
    const auto [at, is_new] = graphs.try_emplace(program);
    const std::string steps = std::exchange(program, {});
    if (is_new) return run_program(steps);
    if (at->second.exec == nullptr) at->second.exec = capture(steps);
    check(cudaGraphLaunch(at->second.exec, stream), "launch of a graph");
    ++num_replays;
  }

  cudaGraphExec_t capture(const std::string& steps) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
    cudaGraph_t graph = nullptr;
    try {
      run_program(steps);
    } catch (...) {
      static_cast<void>(cudaStreamEndCapture(stream, &graph));
      if (graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
      throw;
    }
    check(cudaStreamEndCapture(stream, &graph), "capture");
    cudaGraphExec_t exec = nullptr;
    const cudaError_t status = cudaGraphInstantiate(&exec, graph, 0);
    static_cast<void>(cudaGraphDestroy(graph));
    check(status, "graph");
    return exec;
  }

  int device;
  cudaStream_t stream = nullptr;
  BlasHandle blas;
  Memory workspace;
  bool wide_attention = false;
  // By types, columns, width, activation and whether there is a bias.
  std::map<std::array<std::int64_t, 6>, ProductPlan> plans;
  std::string program;  // steps since the last flush
  std::map<std::string, Graph> graphs;
  std::int64_t num_replays = 0;
};

Queue::Queue(int device) : implementation_(std::make_unique<Implementation>(device)) {}
Queue::~Queue() = default;

int Queue::device() const { return implementation_->device; }
std::int64_t Queue::num_replays() const { return implementation_->num_replays; }

void Queue::append(StepKind kind, const void* step, std::size_t bytes) {
  const std::int64_t head[2] = {static_cast<std::int64_t>(kind), static_cast<std::int64_t>(bytes)};
  std::string& program = implementation_->program;
  program.append(reinterpret_cast<const char*>(head), sizeof(head));
  program.append(static_cast<const char*>(step), bytes);
}

void Queue::flush() { implementation_->flush(); }

void Queue::wait() {
  implementation_->flush();
  check(cudaSetDevice(implementation_->device), "choice of a device");
  check(cudaStreamSynchronize(implementation_->stream), "wait for the device");
}

}  // namespace terse::cuda
