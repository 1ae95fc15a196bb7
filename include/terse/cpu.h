// What this processor can do: CPUID read once, the operating system's part of it, caches, and the
// instruction set (Isa) that backends are chosen by.
// Sources: Intel 64 and IA-32 SDM volume 2A, CPUID; volume 1, chapters 13 and 18; AMD APM volume 3,
// appendix E; Linux Documentation/arch/x86/xstate.rst (AMX permission).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include "terse/error.h"

namespace terse {

// Instruction sets with a backend of their own, each including those before it.
enum class Isa : std::uint8_t {
  reference,  // plain C++
  avx2,       // with FMA and F16C
  avx512,     // F, BW, DQ and VL; BF16 and VNNI where CpuFeatures has them
  amx,        // tiles for bf16 and int8, beside AVX-512 with BF16 and VNNI
};

inline const char* isa_name(Isa isa) {
  static constexpr const char* kNames[] = {"reference", "avx2", "avx512", "amx"};
  return kNames[static_cast<std::size_t>(isa)];
}

// The Isa called name. Throws Error(range) for any other name.
inline Isa parse_isa(std::string_view name) {
  for (const Isa isa : {Isa::reference, Isa::avx2, Isa::avx512, Isa::amx}) {
    if (name == isa_name(isa)) return isa;
  }
  fail(ErrorClass::range, "instruction set ", quote(name),
       ", expected reference, avx2, avx512 or amx");
}

// Every flag includes that the operating system saves the registers. AMX also needs a permission,
// see isa_available().
struct CpuFeatures {
  bool avx2 = false;    // AVX2, FMA and F16C
  bool avx512 = false;  // AVX-512 F, BW, DQ and VL
  bool avx512_bf16 = false;
  bool avx512_vnni = false;
  bool avx_vnni = false;
  bool amx_tile = false;
  bool amx_bf16 = false;
  bool amx_int8 = false;
};

// Bytes of data (or unified) cache that one core sees at each level; 0 where unknown or absent.
struct CacheSizes {
  std::size_t l1d_bytes = 0;
  std::size_t l2_bytes = 0;
  std::size_t l3_bytes = 0;
};

namespace detail {

#if defined(__x86_64__)

struct CpuidRegisters {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// All zero for a leaf the processor does not have.
inline CpuidRegisters cpuid(std::uint32_t leaf, std::uint32_t subleaf = 0) {
  CpuidRegisters r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

// The register sets that the operating system saves (XCR0); 0 without XSAVE.
inline std::uint64_t saved_register_sets() {
  constexpr std::uint32_t kOsxsave = 1U << 27;
  if ((cpuid(1).ecx & kOsxsave) == 0) return 0;
  std::uint32_t low = 0, high = 0;
  // Assembler, because the intrinsic wants the whole file compiled with -mxsave.
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
}

inline CpuFeatures read_cpu_features() {
  const auto bit = [](std::uint32_t word, int index) { return (word >> index & 1U) != 0; };
  const std::uint64_t saved = saved_register_sets();
  const auto saves = [saved](std::uint64_t sets) { return (saved & sets) == sets; };
  const bool ymm = saves(0x6);        // SSE and AVX state
  const bool zmm = saves(0xe6);       // and mask registers, upper halves, upper 16 registers
  const bool tiles = saves(0x60000);  // tile configuration and data
  const CpuidRegisters basic = cpuid(1), seven = cpuid(7), seven_one = cpuid(7, 1);

  CpuFeatures features;
  features.avx2 = ymm && bit(basic.ecx, 12) && bit(basic.ecx, 29) && bit(seven.ebx, 5);
  features.avx512 = zmm && features.avx2 && bit(seven.ebx, 16) && bit(seven.ebx, 17) &&
                    bit(seven.ebx, 30) && bit(seven.ebx, 31);
  features.avx512_bf16 = features.avx512 && bit(seven_one.eax, 5);
  features.avx512_vnni = features.avx512 && bit(seven.ecx, 11);
  features.avx_vnni = features.avx2 && bit(seven_one.eax, 4);
  features.amx_tile = tiles && bit(seven.edx, 24);
  features.amx_bf16 = features.amx_tile && bit(seven.edx, 22);
  features.amx_int8 = features.amx_tile && bit(seven.edx, 25);
  return features;
}

// Leaf 4 (Intel) and leaf 0x8000001d (AMD) describe one cache per subleaf in the same form.
inline CacheSizes read_cache_sizes() {
  CacheSizes sizes;
  const std::uint32_t leaf = (cpuid(4).eax & 0x1f) != 0 ? 4 : 0x8000001d;
  for (std::uint32_t subleaf = 0; subleaf < 16; ++subleaf) {
    const CpuidRegisters r = cpuid(leaf, subleaf);
    const std::uint32_t kind = r.eax & 0x1f;  // 0 none, 1 data, 2 instructions, 3 unified
    if (kind == 0) break;
    if (kind == 2) continue;
    const std::size_t ways = (r.ebx >> 22 & 0x3ff) + 1;
    const std::size_t partitions = (r.ebx >> 12 & 0x3ff) + 1;
    const std::size_t line_bytes = (r.ebx & 0xfff) + 1;
    const std::size_t bytes = ways * partitions * line_bytes * (std::size_t{r.ecx} + 1);
    const std::uint32_t level = r.eax >> 5 & 7;
    if (level == 1) sizes.l1d_bytes = bytes;
    if (level == 2) sizes.l2_bytes = bytes;
    if (level == 3) sizes.l3_bytes = bytes;
  }
  return sizes;
}

// Leaves 0x80000002 to 0x80000004 hold 48 characters, padded with spaces or NULs.
inline std::string read_cpu_name() {
  std::string name;
  for (std::uint32_t leaf = 0x80000002; leaf <= 0x80000004; ++leaf) {
    const CpuidRegisters r = cpuid(leaf);
    char text[sizeof(r)];
    std::memcpy(text, &r, sizeof(r));
    name.append(text, sizeof(r));
  }
  name = name.c_str();
  name.erase(0, name.find_first_not_of(' '));
  name.erase(name.find_last_not_of(' ') + 1);
  return name;
}

#else

inline CpuFeatures read_cpu_features() { return {}; }
inline CacheSizes read_cache_sizes() { return {}; }
inline std::string read_cpu_name() { return ""; }

#endif

// Asks Linux (5.16 or later) to let this process use tile data: without the permission the first
// tile instruction is an illegal one, although CPUID has it. Threads inherit it.
inline bool request_amx_permission() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr long kArchReqXcompPerm = 0x1023;
  constexpr long kXfeatureXtiledata = 18;
  return ::syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureXtiledata) == 0;
#else
  return false;
#endif
}

}  // namespace detail

inline const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detail::read_cpu_features();
  return features;
}

inline const CacheSizes& cache_sizes() {
  static const CacheSizes sizes = detail::read_cache_sizes();
  return sizes;
}

// As the processor calls itself; empty if it does not.
inline const std::string& cpu_name() {
  static const std::string name = detail::read_cpu_name();
  return name;
}

// Whether this process may use AMX tiles; asks the operating system the first time.
inline bool amx_usable() {
  static const bool usable =
      cpu_features().amx_bf16 && cpu_features().amx_int8 && detail::request_amx_permission();
  return usable;
}

// The best Isa that the environment variable TERSE_MAX_ISA allows (all of them if it is not set or
// empty). It lets tests and users force an older path; nothing else in this library reads the
// environment. Throws Error(range) if it names no Isa.
inline Isa max_isa() {
  const char* name = std::getenv("TERSE_MAX_ISA");
  return name == nullptr || *name == '\0' ? Isa::amx : parse_isa(name);
}

// Whether the processor, the operating system and TERSE_MAX_ISA all allow an Isa.
inline bool isa_available(Isa isa) {
  if (isa > max_isa()) return false;
  const CpuFeatures& features = cpu_features();
  switch (isa) {
    case Isa::reference:
      return true;
    case Isa::avx2:
      return features.avx2;
    case Isa::avx512:
      return features.avx512;
    case Isa::amx:
      return features.avx512_bf16 && features.avx512_vnni && amx_usable();
  }
  return false;
}

// The last Isa that is available.
inline Isa best_isa() {
  for (const Isa isa : {Isa::amx, Isa::avx512, Isa::avx2}) {
    if (isa_available(isa)) return isa;
  }
  return Isa::reference;
}

// isa, if it is available. Throws Error(unsupported) if it is not, so that no path is ever entered
// that ends in an illegal instruction.
inline Isa require_isa(Isa isa) {
  check(isa_available(isa), ErrorClass::unsupported, "instruction set ", isa_name(isa),
        " is not available here, the best is ", isa_name(best_isa()));
  return isa;
}

}  // namespace terse
