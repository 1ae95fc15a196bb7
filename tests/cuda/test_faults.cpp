// Each deliberate bug of faults/ is found by the layer that has to find it, and the same code
// without the bug passes: otherwise a layer could be silent, or cry at everything, unnoticed.
#include <doctest/doctest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <string>

namespace {

struct BugToFind {
  const char* program;  // the file in faults/ without its ending
  const char* layer;
  const char* words;  // in what the layer says
};

// Layer emulation: AddressSanitizer, the emulator's rules, or a wrong result in some schedule.
// Layer races: ThreadSanitizer. swapped_operands is found by layer PTX, in tests/cuda/ptx.
constexpr BugToFind kBugs[] = {
    {"missing_barrier_reduction", "races", "ThreadSanitizer: data race"},
    {"missing_barrier_tile", "races", "ThreadSanitizer: data race"},
    {"missing_barrier_double_buffer", "races", "ThreadSanitizer: data race"},
    {"missing_syncwarp", "races", "ThreadSanitizer: data race"},
    {"racing_accumulation", "races", "ThreadSanitizer: data race"},
    {"shared_out_of_bounds", "emulation", "AddressSanitizer: use-after-poison"},
    {"global_out_of_bounds", "emulation", "AddressSanitizer: heap-buffer-overflow"},
    {"host_reads_device", "emulation", "AddressSanitizer: use-after-poison"},
    {"divergent_barrier", "emulation", "divergent barrier"},
    {"barrier_after_exit", "emulation", "thread exits while others wait at the barrier"},
    {"half_warp_shuffle", "emulation", "thread exits while others wait for it at shuffle"},
    {"weak_async_wait", "emulation", "wrong result in schedule"},
    {"large_shared_memory", "emulation", "device: kernel launch: cudaErrorInvalidValue"},
    {"host_pointer", "emulation", "is a pointer to no live device memory"},
    {"missing_stream_sync", "emulation", "wrong result in schedule"},
    {"dead_host_buffer", "emulation", "AddressSanitizer: heap-use-after-free"},
    {"swapped_leading_dimension", "emulation", "product: A does not lie in device memory"},
};

struct Outcome {
  int status;
  std::string text;
};

Outcome run(const std::string& program, const std::string& argument) {
  const std::string command = TERSE_FAULTS_DIR "/fault_" + program + " " + argument + " 2>&1";
  Outcome outcome = {-1, ""};
  std::FILE* const output = popen(command.c_str(), "r");
  if (output == nullptr) return outcome;
  std::array<char, 4096> part;
  while (const std::size_t bytes = std::fread(part.data(), 1, part.size(), output)) {
    outcome.text.append(part.data(), bytes);
  }
  const int status = pclose(output);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

}  // namespace

TEST_CASE("every deliberate bug is found, and nothing is found without it") {
  for (const BugToFind& bug : kBugs) {
    CAPTURE(std::string(bug.program));
    CAPTURE(std::string(bug.layer));
    const Outcome good = run(bug.program, "good");
    CAPTURE(good.text);
    CHECK(good.status == 0);
    CHECK(good.text.empty());
    const Outcome bad = run(bug.program, "bug");
    CAPTURE(bad.text);
    CHECK(bad.status != 0);
    CHECK(bad.text.find(bug.words) != std::string::npos);
  }
}
