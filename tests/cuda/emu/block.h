// The block that runs: its threads, and where they meet. Shared by emu.cpp (block, barriers, shared
// memory, order of threads) and emu_warp.cpp (what a warp does together).
//
// Compiled without instrumentation in every build, and tables are plain arrays touched by plain
// loops: ThreadSanitizer takes notice of each memcpy and of each inline function of the standard
// library, and what the emulator does for one thread after another is no race of the kernel's.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fiber.h"
#include "runtime.h"

namespace emu {

inline constexpr unsigned kMaxThreads = 1024;
inline constexpr unsigned kWarp = 32;
inline constexpr unsigned kMaxWarps = kMaxThreads / kWarp;
inline constexpr std::size_t kStackBytes = 64 * 1024;
inline constexpr std::size_t kGuardBytes = 4096;

enum class State : std::uint8_t { ready, at_block_barrier, at_warp_operation, done };

// What a lane brings to a warp operation and takes from it.
struct Payload {
  std::uint64_t word[8];
};

struct AsyncCopy {
  void* to;
  const void* from;
  std::uint32_t bytes, source_bytes;
  std::uint32_t group;
};
inline constexpr unsigned kMaxAsyncCopies = 256;

struct Fiber : Thread {
  Side side;
  State state = State::done;
  Site site{};
  std::uint32_t mask = 0;
  Payload payload{};
  AsyncCopy copies[kMaxAsyncCopies];
  unsigned num_copies = 0;
  std::uint32_t committed_groups = 0;
};

// Lanes of one warp that meet for one operation.
struct Meeting {
  std::uint32_t mask, arrived;  // mask 0: free
  Site site;
  const char* operation;
  bool orders_memory;
  std::uint8_t turn;  // alternates at each use of the slot
};

// Computes results from the payloads of the lanes in mask; lanes points at lane 0.
using Finish = void (*)(Fiber* lanes, std::uint32_t mask);

// The calling lane meets the others of mask at `site` for `operation`; the last to come runs
// finish. Returns when all have come. Faults: see emu.h.
void meet(Site site, const char* operation, std::uint32_t mask, bool orders_memory, Finish finish);

Fiber& running();
// Where `site` is, for messages.
std::string place(Site site);
std::string in_hex(std::uint32_t mask);

}  // namespace emu
