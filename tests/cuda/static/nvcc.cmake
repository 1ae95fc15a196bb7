# TERSE_NVCC: the CUDA compiler, for tests that look at what it makes (no device is needed).
#
#   terse_ptx(OUTPUT SOURCE ARCHITECTURE)    PTX of a virtual architecture, such as 80
#   terse_needs_nvcc(TEST LABEL)             where there is none: a test that is skipped, or, with
#                                            CI=true in the environment, fails
find_program(TERSE_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin
             DOC "CUDA compiler for the PTX and static tests")
set(terse_static_root ${CMAKE_CURRENT_LIST_DIR})
set(terse_nvcc_flags -std=c++20 -I${PROJECT_SOURCE_DIR}/include -I${PROJECT_SOURCE_DIR}/kernels)

function(terse_ptx output source architecture)
  cmake_path(ABSOLUTE_PATH source)
  add_custom_command(OUTPUT ${output}
    COMMAND ${TERSE_NVCC} ${terse_nvcc_flags} -arch=compute_${architecture} -x cu -ptx -MD -MF ${output}.d
            -o ${output} ${source}
    DEPENDS ${source} DEPFILE ${output}.d VERBATIM)
endfunction()

function(terse_needs_nvcc test label)
  add_test(NAME ${test} COMMAND ${CMAKE_COMMAND} -P ${terse_static_root}/skipped.cmake)
  set_tests_properties(${test} PROPERTIES LABELS ${label} SKIP_REGULAR_EXPRESSION "^skipped:")
endfunction()

# PTX of the kernels that the tests of both folders look at.
set(terse_kernels_ptx_80 ${CMAKE_BINARY_DIR}/tests/cuda/kernels.80.ptx)
set(terse_kernels_ptx_90 ${CMAKE_BINARY_DIR}/tests/cuda/kernels.90.ptx)
set(terse_samples_ptx ${CMAKE_BINARY_DIR}/tests/cuda/samples.80.ptx)
set(terse_ladder_ptx ${CMAKE_BINARY_DIR}/tests/cuda/ladder.80.ptx)
