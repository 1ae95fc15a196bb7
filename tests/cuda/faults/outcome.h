// Runs programs with deliberate bugs and checks that each is found, by the words of its layer.
#pragma once

#include <doctest/doctest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <initializer_list>
#include <string>

namespace faults {

struct BugToFind {
  const char* program;  // fault_PROGRAM in TERSE_FAULTS_DIR
  const char* layer;
  const char* words;  // in what the layer says
};

struct Outcome {
  int status;
  std::string text;
};

inline Outcome outcome_of(const std::string& program, const std::string& argument) {
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

// Each is found, and nothing is found without it.
inline void check_found(std::initializer_list<BugToFind> bugs) {
  for (const BugToFind& bug : bugs) {
    CAPTURE(std::string(bug.program));
    CAPTURE(std::string(bug.layer));
    const Outcome good = outcome_of(bug.program, "good");
    CAPTURE(good.text);
    CHECK(good.status == 0);
    CHECK(good.text.empty());
    const Outcome bad = outcome_of(bug.program, "bug");
    CAPTURE(bad.text);
    CHECK(bad.status != 0);
    CHECK(bad.text.find(bug.words) != std::string::npos);
  }
}

}  // namespace faults
