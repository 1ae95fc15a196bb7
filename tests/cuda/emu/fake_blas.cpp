// Matrix products of cuBLAS and cuBLASLt on the host: column-major, f32 sums taken over k in order,
// whatever the number of rows or columns. Sizes are checked as the libraries document, operands
// must lie in device memory as a whole.
#include <cmath>
#include <cstring>
#include <new>
#include <string>

#include "blas_types.h"
#include "fake_device.h"
#include "terse/dtype.h"

struct cublasContext {
  cudaStream_t stream = nullptr;
  int device = 0;
};
struct cublasLtContext {
  int device = 0;
};
struct cublasLtMatmulDescOpaque_t {
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  cudaDataType scale = CUDA_R_32F;
  cublasOperation_t transa = CUBLAS_OP_N, transb = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
  int bias_type = -1;  // as D
};
struct cublasLtMatrixLayoutOpaque_t {
  cudaDataType type = CUDA_R_32F;
  std::uint64_t rows = 0, columns = 0;
  std::int64_t leading = 0;
  int batch = 1;
  std::int64_t batch_stride = 0;  // elements
};
struct cublasLtMatmulPreferenceOpaque_t {
  std::uint64_t max_workspace_bytes = 0;
  std::uint32_t reduction_mask = 0xffffffffU;
};

namespace emu {

namespace {

using Layout = cublasLtMatrixLayoutOpaque_t;
using Desc = cublasLtMatmulDescOpaque_t;

struct Product {
  Desc desc;
  float alpha, beta;
  const void *a, *b, *c;
  void* d;
  Layout a_layout, b_layout, c_layout, d_layout;

  std::size_t m() const { return d_layout.rows; }
  std::size_t n() const { return d_layout.columns; }
  std::size_t k() const { return desc.transa == CUBLAS_OP_N ? a_layout.columns : a_layout.rows; }
};

std::size_t size_of(cudaDataType type) { return type == CUDA_R_32F ? 4 : 2; }

float read(const void* base, cudaDataType type, std::size_t index) {
  switch (type) {
    case CUDA_R_16BF:
      return terse::to_f32(static_cast<const terse::bf16*>(base)[index]);
    case CUDA_R_16F:
      return terse::to_f32(static_cast<const terse::f16*>(base)[index]);
    default:
      return static_cast<const float*>(base)[index];
  }
}

void write(void* base, cudaDataType type, std::size_t index, float value) {
  switch (type) {
    case CUDA_R_16BF:
      static_cast<terse::bf16*>(base)[index] = terse::to_bf16(value);
      return;
    case CUDA_R_16F:
      static_cast<terse::f16*>(base)[index] = terse::to_f16(value);
      return;
    default:
      static_cast<float*>(base)[index] = value;
  }
}

bool known_type(cudaDataType type) {
  return type == CUDA_R_32F || type == CUDA_R_16F || type == CUDA_R_16BF;
}

// The element (row, column) of op(matrix) of one batch, as an index.
std::size_t index_of(const Layout& layout, std::size_t batch, cublasOperation_t operation,
                     std::size_t row, std::size_t column) {
  const std::size_t start = batch * static_cast<std::size_t>(layout.batch_stride);
  const auto leading = static_cast<std::size_t>(layout.leading);
  return operation == CUBLAS_OP_N ? start + column * leading + row : start + row * leading + column;
}

float activate(cublasLtEpilogue_t epilogue, float x) {
  if ((epilogue & CUBLASLT_EPILOGUE_RELU) != 0) return x > 0 ? x : 0;
  if ((epilogue & CUBLASLT_EPILOGUE_GELU) != 0) {
    return 0.5f * x * (1 + std::tanh(0.7978845608f * (x + 0.044715f * x * x * x)));
  }
  return x;
}

void multiply_batch(const Product& p, std::size_t batch) {
  const std::size_t m = p.m(), n = p.n(), k = p.k();
  std::vector<float> a(m * k);  // (k, m), so that the inner loop walks along m
  for (std::size_t i = 0; i < k; ++i) {
    for (std::size_t row = 0; row < m; ++row) {
      a[i * m + row] =
          read(p.a, p.a_layout.type, index_of(p.a_layout, batch, p.desc.transa, row, i));
    }
  }
  const cudaDataType bias_type = p.d_layout.type;
  const bool biased = (p.desc.epilogue & CUBLASLT_EPILOGUE_BIAS) != 0;
  std::vector<float> sums(m);
  for (std::size_t column = 0; column < n; ++column) {
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (std::size_t i = 0; i < k; ++i) {
      const float factor =
          read(p.b, p.b_layout.type, index_of(p.b_layout, batch, p.desc.transb, i, column));
      const float* const line = a.data() + i * m;
      for (std::size_t row = 0; row < m; ++row) sums[row] += line[row] * factor;
    }
    for (std::size_t row = 0; row < m; ++row) {
      float value = p.alpha * sums[row];
      // With beta zero C is not read: it may hold anything.
      if (p.beta != 0) {
        value += p.beta *
                 read(p.c, p.c_layout.type, index_of(p.c_layout, batch, CUBLAS_OP_N, row, column));
      }
      if (biased) value += read(p.desc.bias, bias_type, row);
      write(p.d, p.d_layout.type, index_of(p.d_layout, batch, CUBLAS_OP_N, row, column),
            activate(p.desc.epilogue, value));
    }
  }
}

bool valid_layout(const Layout& layout) {
  return known_type(layout.type) && layout.rows > 0 && layout.columns > 0 && layout.batch > 0 &&
         layout.leading >= static_cast<std::int64_t>(layout.rows);
}

std::size_t extent_bytes(const Layout& layout) {
  const std::size_t last =
      static_cast<std::size_t>(layout.batch - 1) * static_cast<std::size_t>(layout.batch_stride) +
      (layout.columns - 1) * static_cast<std::size_t>(layout.leading) + layout.rows;
  return last * size_of(layout.type);
}

void check_extent(const char* name, const void* data, std::size_t bytes) {
  if (!in_device_memory(data, bytes)) {
    fault(std::string("product: ") + name + " does not lie in device memory with all its " +
          std::to_string(bytes) + " bytes");
  }
}

cublasStatus_t check_product(const Product& p) {
  const Layout &a = p.a_layout, &b = p.b_layout, &c = p.c_layout, &d = p.d_layout;
  if (!valid_layout(a) || !valid_layout(b) || !valid_layout(c) || !valid_layout(d)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const bool plain_a = p.desc.transa == CUBLAS_OP_N, plain_b = p.desc.transb == CUBLAS_OP_N;
  if ((plain_a ? a.rows : a.columns) != p.m() || (plain_b ? b.columns : b.rows) != p.n() ||
      (plain_b ? b.rows : b.columns) != p.k() || c.rows != d.rows || c.columns != d.columns ||
      a.batch != d.batch || b.batch != d.batch || c.batch != d.batch) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (a.type != b.type || c.type != d.type || (d.type != a.type && d.type != CUDA_R_32F) ||
      p.desc.scale != CUDA_R_32F) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  const bool biased = (p.desc.epilogue & CUBLASLT_EPILOGUE_BIAS) != 0;
  if (biased && p.desc.bias == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  // The elements of a bias are those of D, says the header.
  if (biased && p.desc.bias_type >= 0 && p.desc.bias_type != static_cast<int>(d.type)) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t multiply(const Product& product, cudaStream_t stream, int device) {
  const Lock lock(runtime_mutex());
  if (enter() != cudaSuccess) return CUBLAS_STATUS_EXECUTION_FAILED;
  if (const auto status = check_product(product); status != CUBLAS_STATUS_SUCCESS) return status;
  if (device != current_device() || device_of(stream) != device) {
    fault("product: handle, stream and current device are not of one device");
  }
  check_extent("A", product.a, extent_bytes(product.a_layout));
  check_extent("B", product.b, extent_bytes(product.b_layout));
  if (product.beta != 0) check_extent("C", product.c, extent_bytes(product.c_layout));
  check_extent("D", product.d, extent_bytes(product.d_layout));
  if ((product.desc.epilogue & CUBLASLT_EPILOGUE_BIAS) != 0) {
    check_extent("bias", product.desc.bias, product.m() * size_of(product.d_layout.type));
  }
  if (product.desc.epilogue != CUBLASLT_EPILOGUE_DEFAULT) ++counted().epilogues;
  const cudaError_t error = enqueue(stream, [product] {
    const DeviceAccess access;
    for (int batch = 0; batch < product.d_layout.batch; ++batch) {
      multiply_batch(product, static_cast<std::size_t>(batch));
    }
  });
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

Layout layout_of(cudaDataType type, int rows, int columns, int leading, int batch,
                 long long stride) {
  return {type,
          static_cast<std::uint64_t>(rows < 0 ? 0 : rows),
          static_cast<std::uint64_t>(columns < 0 ? 0 : columns),
          leading,
          batch,
          stride};
}

template <class T>
cublasStatus_t assign(T* field, const void* value, std::size_t bytes) {
  if (value == nullptr || bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(field, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

template <class T>
cublasStatus_t create(T** handle, const T& value) {
  if (handle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  *handle = new T(value);
  return CUBLAS_STATUS_SUCCESS;
}

template <class T>
cublasStatus_t destroy(T* handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

}  // namespace emu

using namespace emu;

// ---- cuBLAS

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  const Lock lock(runtime_mutex());
  if (enter() != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  return create(handle, cublasContext{nullptr, current_device()});
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) { return destroy(handle); }
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void* workspace, std::size_t bytes) {
  const Lock lock(runtime_mutex());
  if (bytes > 0 && !in_device_memory(workspace, bytes)) fault("cuBLAS: workspace of no device");
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) { return CUBLAS_STATUS_SUCCESS; }

const char* cublasGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
      return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH:
      return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR:
      return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
  return "unknown status";
}
const char* cublasGetStatusString(cublasStatus_t status) { return cublasGetStatusName(status); }
const char* cublasLtGetStatusName(cublasStatus_t status) { return cublasGetStatusName(status); }
const char* cublasLtGetStatusString(cublasStatus_t status) { return cublasGetStatusName(status); }

cublasStatus_t cublasGemmStridedBatchedEx(
    cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n, int k,
    const void* alpha, const void* A, cudaDataType Atype, int lda, long long strideA, const void* B,
    cudaDataType Btype, int ldb, long long strideB, const void* beta, void* C, cudaDataType Ctype,
    int ldc, long long strideC, int batchCount, cublasComputeType_t computeType, cublasGemmAlgo_t) {
  if (m < 0 || n < 0 || k < 0 || batchCount < 0) return CUBLAS_STATUS_INVALID_VALUE;
  if (m == 0 || n == 0 || batchCount == 0) return CUBLAS_STATUS_SUCCESS;
  const bool plain_a = transa == CUBLAS_OP_N, plain_b = transb == CUBLAS_OP_N;
  Desc desc;
  desc.compute = computeType;
  desc.transa = transa;
  desc.transb = transb;
  const Layout c = layout_of(Ctype, m, n, ldc, batchCount, strideC);
  return multiply(
      {desc, *static_cast<const float*>(alpha), *static_cast<const float*>(beta), A, B, C, C,
       layout_of(Atype, plain_a ? m : k, plain_a ? k : m, lda, batchCount, strideA),
       layout_of(Btype, plain_b ? k : n, plain_b ? n : k, ldb, batchCount, strideB), c, c},
      handle->stream, handle->device);
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transa,
                            cublasOperation_t transb, int m, int n, int k, const void* alpha,
                            const void* A, cudaDataType Atype, int lda, const void* B,
                            cudaDataType Btype, int ldb, const void* beta, void* C,
                            cudaDataType Ctype, int ldc, cublasComputeType_t computeType,
                            cublasGemmAlgo_t algo) {
  return cublasGemmStridedBatchedEx(handle, transa, transb, m, n, k, alpha, A, Atype, lda, 0, B,
                                    Btype, ldb, 0, beta, C, Ctype, ldc, 0, 1, computeType, algo);
}

// ---- cuBLASLt

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  const Lock lock(runtime_mutex());
  if (enter() != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  return create(handle, cublasLtContext{current_device()});
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) { return destroy(handle); }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute,
                                        cudaDataType scale) {
  Desc value;
  value.compute = compute;
  value.scale = scale;
  return create(desc, value);
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) { return destroy(desc); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, std::size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return assign(&desc->transa, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return assign(&desc->transb, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return assign(&desc->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return assign(&desc->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return assign(&desc->bias_type, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type,
                                          std::uint64_t rows, std::uint64_t columns,
                                          std::int64_t leading) {
  return create(layout, Layout{type, rows, columns, leading});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  return destroy(layout);
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void* value, std::size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
      return assign(&layout->batch, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      return assign(&layout->batch_stride, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  return create(preference, cublasLtMatmulPreferenceOpaque_t{});
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return destroy(preference);
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, std::size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return assign(&preference->max_workspace_bytes, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return assign(&preference->reduction_mask, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t, int requested,
                                              cublasLtMatmulHeuristicResult_t* results,
                                              int* returned) {
  if (requested <= 0) return CUBLAS_STATUS_INVALID_VALUE;
  *returned = 0;
  const auto status =
      check_product({*desc, 1, 0, nullptr, nullptr, nullptr, nullptr, *a, *b, *c, *d});
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (!options().blas_epilogues && desc->epilogue != CUBLASLT_EPILOGUE_DEFAULT) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  results[0] = {};
  results[0].state = CUBLAS_STATUS_SUCCESS;
  *returned = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void* alpha,
                              const void* A, cublasLtMatrixLayout_t a, const void* B,
                              cublasLtMatrixLayout_t b, const void* beta, const void* C,
                              cublasLtMatrixLayout_t c, void* D, cublasLtMatrixLayout_t d,
                              const cublasLtMatmulAlgo_t*, void* workspace, std::size_t bytes,
                              cudaStream_t stream) {
  const Lock lock(runtime_mutex());
  if (bytes > 0 && !in_device_memory(workspace, bytes)) fault("cuBLASLt: workspace of no device");
  return multiply({*desc, *static_cast<const float*>(alpha), *static_cast<const float*>(beta), A, B,
                   C, D, *a, *b, *c, *d},
                  stream, handle->device);
}
