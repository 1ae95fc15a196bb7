// cuBLASLt, loaded when it is first called: the library takes half a gigabyte and a tenth of a
// second, which a program on a machine without a device should not pay at every start. The
// functions that launch.cu calls are defined here and handed on; without the library they fail,
// which launch.cu turns into Error(device).
#include <cublasLt.h>
#include <dlfcn.h>

namespace {

// The function of that name in the library: the one that the loader finds, else the one that this
// file was compiled against. Null if there is none.
void* find(const char* name) {
  static void* const library = [] {
    void* const found = dlopen(TERSE_CUBLASLT_NAME, RTLD_NOW | RTLD_LOCAL);
    return found != nullptr ? found : dlopen(TERSE_CUBLASLT_PATH, RTLD_NOW | RTLD_LOCAL);
  }();
  return library == nullptr ? nullptr : dlsym(library, name);
}

// FUNCTION is the one defined below, here only for its type and to tell one cache from another.
template <auto FUNCTION, class... Arguments>
cublasStatus_t hand_on(const char* name, Arguments... arguments) {
  static const auto function = reinterpret_cast<decltype(FUNCTION)>(find(name));
  return function == nullptr ? CUBLAS_STATUS_NOT_INITIALIZED : function(arguments...);
}

}  // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  return hand_on<&cublasLtCreate>("cublasLtCreate", handle);
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  return hand_on<&cublasLtDestroy>("cublasLtDestroy", handle);
}

const char* cublasLtGetStatusName(cublasStatus_t status) {
  static const auto function =
      reinterpret_cast<decltype(&cublasLtGetStatusName)>(find("cublasLtGetStatusName"));
  return function == nullptr ? "no " TERSE_CUBLASLT_NAME : function(status);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t stride) {
  return hand_on<&cublasLtMatrixLayoutCreate>("cublasLtMatrixLayoutCreate", layout, type, rows,
                                              columns, stride);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  return hand_on<&cublasLtMatrixLayoutDestroy>("cublasLtMatrixLayoutDestroy", layout);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description,
                                        cublasComputeType_t compute, cudaDataType_t scale) {
  return hand_on<&cublasLtMatmulDescCreate>("cublasLtMatmulDescCreate", description, compute,
                                            scale);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
  return hand_on<&cublasLtMatmulDescDestroy>("cublasLtMatmulDescDestroy", description);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  return hand_on<&cublasLtMatmulDescSetAttribute>("cublasLtMatmulDescSetAttribute", description,
                                                  attribute, value, bytes);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  return hand_on<&cublasLtMatmulPreferenceCreate>("cublasLtMatmulPreferenceCreate", preference);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return hand_on<&cublasLtMatmulPreferenceDestroy>("cublasLtMatmulPreferenceDestroy", preference);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t bytes) {
  return hand_on<&cublasLtMatmulPreferenceSetAttribute>("cublasLtMatmulPreferenceSetAttribute",
                                                        preference, attribute, value, bytes);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle,
                                              cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int asked,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* found) {
  return hand_on<&cublasLtMatmulAlgoGetHeuristic>("cublasLtMatmulAlgoGetHeuristic", handle,
                                                  description, a, b, c, d, preference, asked,
                                                  results, found);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t description,
                              const void* alpha, const void* a, cublasLtMatrixLayout_t a_layout,
                              const void* b, cublasLtMatrixLayout_t b_layout, const void* beta,
                              const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  return hand_on<&cublasLtMatmul>("cublasLtMatmul", handle, description, alpha, a, a_layout, b,
                                  b_layout, beta, c, c_layout, d, d_layout, algorithm, workspace,
                                  workspace_bytes, stream);
}
