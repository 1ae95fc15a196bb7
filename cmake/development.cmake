# How this project compiles its own programs. Nothing here reaches a project that uses the library.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

find_program(TERSE_CCACHE ccache)
mark_as_advanced(TERSE_CCACHE)
if(TERSE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${TERSE_CCACHE})
endif()

# nvcc has flags of its own, see cuda.cmake.
add_compile_options(
  "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wconversion;-Wsign-conversion;-Wshadow>")
# Templates leave g++ with much to remember and little to forget: collecting garbage takes a fifth of
# its time where the limit follows the machine's memory as by default (in KiB).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:SHELL:--param ggc-min-heapsize=1048576>")
endif()
if(TERSE_WERROR)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()

if(TERSE_SANITIZE STREQUAL "address")
  set(terse_sanitizer_flags -fsanitize=address,undefined -fno-sanitize-recover=all)
elseif(TERSE_SANITIZE STREQUAL "thread")
  set(terse_sanitizer_flags -fsanitize=thread)
elseif(TERSE_SANITIZE)
  message(FATAL_ERROR "TERSE_SANITIZE: expected address, thread or nothing, got ${TERSE_SANITIZE}")
endif()
if(terse_sanitizer_flags)
  add_compile_options(${terse_sanitizer_flags} -fno-omit-frame-pointer)
  add_link_options(${terse_sanitizer_flags})
endif()
