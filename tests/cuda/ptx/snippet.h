// Runs hand-written PTX in the emulation, for the tests of the interpreter.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "cuda_test.h"
#include "device.cuh"
#include "module.h"

namespace terse::ptx::test {

// What launches are made of; the interpreter runs the snippet in its place.
inline void snippet_kernel(const void*, void*) {}

// A kernel of two pointers, in %in and %out, with %tid.x in %t and some registers of each kind.
inline std::string kernel_text(const std::string& body, const std::string& before = "") {
  return ".version 8.0\n.target sm_80\n.address_size 64\n" + before +
         "\n.visible .entry snippet(.param .u64 p_in, .param .u64 p_out)\n{\n"
         ".reg .pred %p<8>; .reg .b16 %h<16>; .reg .b32 %r<32>; .reg .b64 %rd<32>;\n"
         ".reg .f32 %f<32>; .reg .f64 %fd<8>; .reg .b64 %in, %out; .reg .b32 %t;\n"
         "ld.param.u64 %in, [p_in];\nld.param.u64 %out, [p_out];\nmov.u32 %t, %tid.x;\n" +
         body + "\nret;\n}\n";
}

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}
template <class T>
std::vector<T> values_of(const std::vector<std::byte>& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

// The `out` bytes after `body` ran once in each of num_threads threads of num_blocks blocks.
inline std::vector<std::byte> run_bytes(const std::string& text, const std::vector<std::byte>& in,
                                        std::size_t out_bytes, unsigned num_threads,
                                        unsigned num_blocks = 1, std::size_t dynamic_smem = 0) {
  const Module module(text);
  const cuda_test::DeviceBuffer<std::byte> device_in(in);
  const cuda_test::DeviceBuffer<std::byte> device_out{std::vector<std::byte>(out_bytes)};
  emu::set_body_provider([&](emu::Launch launch) {
    launch.name = "snippet";
    return module.body(launch);
  });
  struct Restore {
    ~Restore() { Module::uninstall(); }
  } restore;
  cuda::klaunch(snippet_kernel, dim3(num_blocks), dim3(num_threads), dynamic_smem, nullptr,
                static_cast<const void*>(device_in.get()), static_cast<void*>(device_out.get()));
  return device_out.values();
}

template <class Out, class In>
std::vector<Out> run(const std::string& body, const std::vector<In>& in, std::size_t num_out,
                     unsigned num_threads = 1, const std::string& before = "",
                     std::size_t dynamic_smem = 0) {
  return values_of<Out>(run_bytes(kernel_text(body, before), bytes_of(in), num_out * sizeof(Out),
                                  num_threads, 1, dynamic_smem));
}

}  // namespace terse::ptx::test
