# terse::cuda: the kernels for NVIDIA devices of compute capability 8.0 and later, where a CUDA
# compiler is found. Who links it gets the op table of these devices; without it the library is the
# same and says that it was built without CUDA. Sanitizers cannot look into it, and the tests of
# tests/cuda compile the kernels for the CPU in their own way.
if(NOT TERSE_WITH_CUDA OR TERSE_SANITIZE)
  return()
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  return()
endif()
if(NOT CMAKE_CUDA_ARCHITECTURES)
  # Machine code for the A100 and H100 generations, PTX for what comes after.
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 90-virtual)
endif()
enable_language(CUDA)
find_package(CUDAToolkit QUIET)
if(NOT TARGET CUDA::cublasLt OR NOT TARGET CUDA::cudart_static)
  message(STATUS "CUDA: no cuBLAS, GPUs are left out")
  return()
endif()

# cuBLAS is not linked but loaded when a device is first used, see cublas_on_demand.cpp.
add_library(terse_cuda STATIC EXCLUDE_FROM_ALL kernels/launch.cu kernels/cublas_on_demand.cpp)
add_library(terse::cuda ALIAS terse_cuda)
set_target_properties(terse_cuda PROPERTIES EXPORT_NAME cuda)
target_link_libraries(terse_cuda PUBLIC terse_library CUDA::cudart_static ${CMAKE_DL_LIBS})
set(terse_cublas_name libcublasLt.so.${CUDAToolkit_VERSION_MAJOR})
cmake_path(REPLACE_FILENAME CUDA_cublasLt_LIBRARY ${terse_cublas_name} OUTPUT_VARIABLE terse_cublas_path)
set_source_files_properties(kernels/cublas_on_demand.cpp PROPERTIES COMPILE_DEFINITIONS
  "TERSE_CUBLASLT_NAME=\"${terse_cublas_name}\";TERSE_CUBLASLT_PATH=\"${terse_cublas_path}\"")
target_compile_definitions(terse_cuda INTERFACE TERSE_WITH_CUDA)
# The standard by its flag: CMake 3.25 does not know what newer compilers can do. A kernel that spills
# or uses local memory is a mistake.
target_compile_options(terse_cuda PRIVATE
  "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-std=c++20 -Xptxas -warn-spills,-warn-lmem-usage,-Werror>")
