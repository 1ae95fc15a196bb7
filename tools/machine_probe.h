// How fast this machine is right now, and how much memory this process has used.
#pragma once

#include <chrono>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <string>

namespace terse_tools {

// GFLOP/s of a fixed loop of multiply-adds in 64 chains on one core, some 20 ms of it: comparable
// with itself only. A lower figure than before means that the machine is busy, or hot.
inline double probe_gflops() {
  constexpr std::size_t kChains = 64;
  constexpr std::size_t kSteps = 1'000'000;
  float chains[kChains];
  for (std::size_t i = 0; i < kChains; ++i) chains[i] = static_cast<float>(i);
  const auto start = std::chrono::steady_clock::now();
  for (std::size_t step = 0; step < kSteps; ++step) {
    for (float& chain : chains) chain = chain * 0.999f + 0.5f;
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  float sum = 0;
  for (const float chain : chains) sum += chain;
  // The sum is used, or a compiler would leave the loop out.
  return sum > 0 ? 2.0 * kChains * kSteps / seconds.count() * 1e-9 : 0;
}

// Starts the count of peak_rss_mb() anew, where the system can.
inline void reset_peak_rss() { std::ofstream("/proc/self/clear_refs") << "5"; }

// Most memory in use since the last reset, in MB; NaN where the system does not say.
inline double peak_rss_mb() {
  std::ifstream status("/proc/self/status");
  std::string name;
  double kilobytes = 0;
  while (status >> name) {
    if (name == "VmHWM:" && status >> kilobytes) return kilobytes * 1024e-6;
    std::getline(status, name);
  }
  return std::nan("");
}

}  // namespace terse_tools
