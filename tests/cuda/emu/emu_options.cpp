// What a test chooses, and what CI chooses for it.
#include <cstdlib>

#include "emu.h"

namespace emu {

Options& options() {
  static Options chosen;
  return chosen;
}

Options options_for_seed(std::uint64_t seed) {
  Options chosen = options();
  chosen.schedule = seed % 2 == 1 ? Schedule::greedy : Schedule::shuffled;
  chosen.copy_at_wait = seed % 2 == 0;
  chosen.seed = seed;
  return chosen;
}

std::vector<NamedOptions> schedules() {
  std::vector<NamedOptions> all = {{"in_order", options()}, {"reverse", options()}};
  all[1].options.schedule = Schedule::reverse;
  all[1].options.copy_at_wait = true;
  all[1].options.deferred_streams = true;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    all.push_back({"seed_" + std::to_string(seed), options_for_seed(seed)});
    all.back().options.deferred_streams = seed % 4 >= 2;
    all.back().options.perturb_math = seed == 4;
  }
#ifdef EMU_TSAN
  all = {all[3]};
#endif
  if (const char* const name = std::getenv("EMU_SCHEDULE")) {
    std::erase_if(all, [name](const NamedOptions& one) { return one.name != name; });
    if (all.empty()) throw Fault(std::string("EMU_SCHEDULE: no schedule ") + name);
  }
  return all;
}

}  // namespace emu
