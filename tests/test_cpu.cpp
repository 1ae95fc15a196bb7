#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <string>

#include "support.h"
#include "terse/cpu.h"
#include "terse/dtype.h"
#include "terse/ops/backends.h"

using terse::Isa;
using terse_test::error_class_of;

namespace {

constexpr Isa kAll[] = {Isa::reference, Isa::avx2, Isa::avx512, Isa::amx};

// Sets TERSE_MAX_ISA for as long as it lives.
class MaxIsa {
 public:
  explicit MaxIsa(const char* name) {
    if (const char* old = std::getenv("TERSE_MAX_ISA")) before_ = old;
    setenv("TERSE_MAX_ISA", name, 1);
  }
  ~MaxIsa() {
    if (before_) {
      setenv("TERSE_MAX_ISA", before_->c_str(), 1);
    } else {
      unsetenv("TERSE_MAX_ISA");
    }
  }
  MaxIsa(const MaxIsa&) = delete;
  MaxIsa& operator=(const MaxIsa&) = delete;

 private:
  std::optional<std::string> before_;
};

// The flags of the first processor in /proc/cpuinfo; empty where there is no such file.
std::set<std::string> system_flags() {
  std::ifstream file("/proc/cpuinfo");
  std::set<std::string> flags;
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("flags")) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    for (std::string word; words >> word;) flags.insert(word);
    break;
  }
  return flags;
}

}  // namespace

TEST_CASE("names of instruction sets round trip, others are refused") {
  for (const Isa isa : kAll) CHECK(terse::parse_isa(terse::isa_name(isa)) == isa);
  for (const char* name : {"", "AVX2", "avx", "auto", "avx512 "}) {
    CHECK(error_class_of([&] { terse::parse_isa(name); }) == "range");
  }
}

#if defined(__x86_64__)
TEST_CASE("features agree with what the operating system found") {
  const auto flags = system_flags();
  if (flags.empty()) return;
  const auto has = [&](const char* flag) { return flags.contains(flag); };
  const terse::CpuFeatures& features = terse::cpu_features();
  CHECK(features.avx2 == (has("avx2") && has("fma") && has("f16c")));
  CHECK(features.avx512 ==
        (has("avx512f") && has("avx512bw") && has("avx512dq") && has("avx512vl")));
  CHECK(features.avx512_bf16 == has("avx512_bf16"));
  CHECK(features.avx512_vnni == has("avx512_vnni"));
  CHECK(features.avx_vnni == has("avx_vnni"));
  CHECK(features.amx_tile == has("amx_tile"));
  CHECK(features.amx_bf16 == has("amx_bf16"));
  CHECK(features.amx_int8 == has("amx_int8"));
}

TEST_CASE("caches grow from level to level") {
  const terse::CacheSizes& sizes = terse::cache_sizes();
  CHECK(sizes.l1d_bytes >= 8192);
  CHECK(sizes.l2_bytes >= sizes.l1d_bytes);
  CHECK((sizes.l3_bytes == 0 || sizes.l3_bytes >= sizes.l2_bytes));
}
#endif

TEST_CASE("an instruction set includes those before it") {
  CHECK(terse::isa_available(Isa::reference));
  for (const Isa isa : kAll) {
    CHECK(terse::isa_available(isa) == (isa <= terse::best_isa()));
    const std::string found = error_class_of([&] { terse::require_isa(isa); });
    CHECK(found == (terse::isa_available(isa) ? "none" : "unsupported"));
  }
}

TEST_CASE("TERSE_MAX_ISA caps the choice and refuses other words") {
  const Isa best = [] {
    const MaxIsa cap("");
    return terse::best_isa();
  }();
  for (const Isa isa : kAll) {
    const MaxIsa cap(terse::isa_name(isa));
    CHECK(terse::best_isa() == std::min(best, isa));
    if (isa < Isa::amx) CHECK(!terse::isa_available(Isa::amx));
  }
  const MaxIsa cap("fastest");
  CHECK(error_class_of([] { terse::best_isa(); }) == "range");
}

TEST_CASE("products without a type are bf16 where an instruction multiplies it, else f32") {
  for (const Isa isa : kAll) {
    if (!terse::isa_available(isa)) continue;
    CAPTURE(terse::isa_name(isa));
    const bool multiplies =
        isa == Isa::amx || (isa == Isa::avx512 && terse::cpu_features().avx512_bf16);
    const terse::DType expected = multiplies ? terse::DType::bf16 : terse::DType::f32;
    const terse::Backend& chosen = terse::choose_backend(isa, std::nullopt);
    CHECK(chosen.isa == isa);
    CHECK(chosen.compute == expected);
    const MaxIsa cap(terse::isa_name(isa));
    CHECK(&terse::choose_backend(std::nullopt, std::nullopt) == &chosen);
  }
}
