// The floating-point environment of a forward pass.
#pragma once

#include <cfenv>

namespace terse {

// While it lives: round to nearest, no traps, denormals kept; then whatever the calling thread had.
// Scores must not depend on a rounding mode or a flush-to-zero flag that the program set elsewhere.
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

}  // namespace terse
