// The floating-point environment of a forward pass.
#pragma once

#if defined(__x86_64__)
#include <xmmintrin.h>
#else
#include <cfenv>
#endif

namespace terse {

// While it lives: round to nearest, no traps, denormals kept; then whatever the calling thread had.
// Scores must not depend on a rounding mode or a flush-to-zero flag that the program set elsewhere.
#if defined(__x86_64__)

// MXCSR alone, which rules all float and double arithmetic here: cheap enough for every work item.
class ComputeScope {
 public:
  ComputeScope() { _mm_setcsr(0x1f80); }
  ~ComputeScope() { _mm_setcsr(saved_); }
  ComputeScope(const ComputeScope&) = delete;
  ComputeScope& operator=(const ComputeScope&) = delete;

 private:
  unsigned saved_ = _mm_getcsr();
};

#else

class ComputeScope {
 public:
  ComputeScope() {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~ComputeScope() { std::fesetenv(&saved_); }
  ComputeScope(const ComputeScope&) = delete;
  ComputeScope& operator=(const ComputeScope&) = delete;

 private:
  std::fenv_t saved_ = {};
};

#endif

}  // namespace terse
