# The shipped kernels and op table in emulation: every op against the judge (the tests of the CPU's
# tables among them), whole forward passes, and devices that fail.
#
# What has no kernels in it is compiled once: models know no device, and of terse::compiled only
# backends.cpp does, which is compiled once more, for the emulator.
add_library(emu_backends OBJECT ${PROJECT_SOURCE_DIR}/kernels/backends.cpp)
target_link_libraries(emu_backends PRIVATE emu_plain terse::terse)
target_compile_definitions(emu_backends PRIVATE TERSE_WITH_CUDA TERSE_COMPILED)
set(terse_cuda_library $<TARGET_OBJECTS:emu_backends> $<TARGET_OBJECTS:terse_models>)
terse_cuda_test(test_kernels KERNELS SOURCES test_kernels.cpp LIBRARIES terse::terse)
terse_cuda_test(test_ops_cuda KERNELS VARIANTS plain SOURCES ../test_ops.cpp
                LIBRARIES terse::terse)
terse_cuda_test(test_forward KERNELS VARIANTS plain SOURCES test_forward.cpp ${terse_cuda_library}
                LIBRARIES terse::terse)
terse_cuda_test(test_devices KERNELS VARIANTS plain SOURCES test_devices.cpp ${terse_cuda_library}
                LIBRARIES terse::terse)
foreach(name IN ITEMS test_kernels test_kernels_asan test_kernels_tsan test_ops_cuda test_forward
                      test_devices)
  if(TARGET ${name})
    target_compile_definitions(${name} PRIVATE TERSE_WITH_CUDA TERSE_TEST_CUDA)
  endif()
endforeach()
foreach(name IN ITEMS test_forward test_devices)
  target_compile_definitions(${name} PRIVATE TERSE_COMPILED)
endforeach()
if(TERSE_SHARED)
  set_property(TEST test_forward APPEND PROPERTY ENVIRONMENT "TERSE_SHARED=${TERSE_SHARED}")
endif()

# The same on a real device: every kernel and every op against the judge, whole forward passes.
if(TARGET terse_cuda)
  foreach(name IN ITEMS test_kernels test_ops test_forward)
    set(source ${name}.cpp)
    if(name STREQUAL "test_ops")
      set(source ../test_ops.cpp)
    endif()
    add_executable(${name}_device ${source} device_main.cpp)
    target_link_libraries(${name}_device PRIVATE terse::compiled doctest::doctest)
    target_include_directories(${name}_device PRIVATE ${terse_cuda_root})
    target_compile_definitions(${name}_device PRIVATE TERSE_TEST_CUDA
                               TERSE_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    target_compile_options(${name}_device PRIVATE -O1 -g0)
    add_test(NAME ${name}_device COMMAND ${name}_device)
    set_tests_properties(${name}_device PROPERTIES LABELS cuda-device
      SKIP_REGULAR_EXPRESSION "skipped: no CUDA device" ENVIRONMENT "TERSE_SHARED=${TERSE_SHARED}")
  endforeach()
endif()
