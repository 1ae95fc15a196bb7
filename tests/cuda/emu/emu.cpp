// The fiber runtime: runs a grid block by block, each thread a fiber, in the order asked for.
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <exception>

#include "block.h"

#ifndef EMU_UCONTEXT
asm(R"(
.text
.globl emu_switch_stack
.type emu_switch_stack, @function
emu_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emu_switch_stack, .-emu_switch_stack
)");
#endif

namespace emu {

Thread* current = nullptr;

namespace {

constexpr std::size_t kSyncBytes = std::size_t{64} << 10;
constexpr std::size_t kStaticLimitBytes = std::size_t{48} << 10;
constexpr std::size_t kGapBytes = 64;  // poisoned, after each shared array
constexpr unsigned kMaxArrays = 128;

struct SharedArray {
  const void* key;
  std::size_t bytes;
  unsigned char* address;
};

struct Block {
  unsigned num_threads, num_warps, num_exited;
  dim3 block_dim;
  // The barrier: how many have come, where, and what they vote.
  unsigned num_arrived;
  Site site;
  unsigned votes;
  int vote_result;
  unsigned turn;
  Meeting meetings[kMaxWarps][kWarp];
  // Shared memory.
  SharedArray arrays[kMaxArrays];
  unsigned num_arrays;
  std::size_t window_used, static_bytes, dynamic_bytes, limit_bytes;
  unsigned char* dynamic;
};

Fiber fibers[kMaxThreads];
Block block;
Side host;
const Body* body;
unsigned char* mapped;  // kSyncBytes of synchronisation objects, then the shared window
unsigned char* stacks;
std::size_t stacks_bytes;
char grid_end;  // what every thread releases and the host acquires
// The first fault of the grid.
bool faulted;
std::string* fault_text;

unsigned order[kMaxThreads];
unsigned warp_order[kMaxWarps];
std::uint64_t random_state;

std::uint64_t next_random() {  // splitmix64
  random_state += 0x9e3779b97f4a7c15U;
  std::uint64_t z = random_state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

void shuffle_order(unsigned* values, unsigned count) {
  for (unsigned i = count; i > 1; --i) {
    const auto other = static_cast<unsigned>(next_random() % i);
    const unsigned value = values[i - 1];
    values[i - 1] = values[other];
    values[other] = value;
  }
}

std::string triple(unsigned x, unsigned y, unsigned z) {
  return "(" + std::to_string(x) + "," + std::to_string(y) + "," + std::to_string(z) + ")";
}

std::string name_of(const Thread& thread) {
  return "block " + triple(thread.block.x, thread.block.y, thread.block.z) + " thread " +
         triple(thread.thread.x, thread.thread.y, thread.thread.z);
}

std::string name_of(const Options& chosen) {
  static constexpr const char* kNames[] = {"in order", "reverse", "shuffled", "greedy"};
  return std::string(kNames[static_cast<std::size_t>(chosen.schedule)]) + ", seed " +
         std::to_string(chosen.seed) + (chosen.copy_at_wait ? ", copies at wait" : "");
}

// ---- Edges that ThreadSanitizer is told of

void release([[maybe_unused]] void* object) {
#ifdef EMU_TSAN
  __tsan_release(object);
#endif
}
void acquire([[maybe_unused]] void* object) {
#ifdef EMU_TSAN
  __tsan_acquire(object);
#endif
}
void* block_object(unsigned turn) { return mapped + 8 * (turn & 1U); }
void* warp_object(unsigned warp, unsigned slot, unsigned turn) {
  return mapped + 64 + 8 * ((std::size_t{warp} * kWarp + slot) * 2 + (turn & 1U));
}

// ---- Fibers

void leave() {
  Fiber& fiber = running();
  switch_side(fiber.side, host);
  current = &fiber;
}

void check_exit(const Fiber& fiber) {
  if (block.num_arrived > 0) {
    fault("thread exits while others wait at the barrier " + place(block.site));
  }
  const unsigned warp = fiber.linear / kWarp;
  for (const Meeting& meeting : block.meetings[warp]) {
    if ((meeting.mask >> fiber.lane & 1U) != 0) {
      fault(std::string("thread exits while others wait for it at ") + meeting.operation + " " +
            place(meeting.site));
    }
  }
}

void fiber_main() {
  arrive_first(host);
  Fiber& fiber = running();
  try {
    (*body)();
    check_exit(fiber);
  } catch (const std::exception& error) {
    if (!faulted) {
      faulted = true;
      *fault_text = error.what();
    }
  }
  fiber.state = State::done;
  ++block.num_exited;
  switch_side(fiber.side, host, true);
  std::abort();
}

void run_fiber(Fiber& fiber) {
  current = &fiber;
  switch_side(host, fiber.side);
  current = nullptr;
}

void* map_pages(std::size_t bytes) {
  void* const pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) throw Fault("emulator: no memory for stacks or shared memory");
  return pages;
}

// Stacks and the arena; under ThreadSanitizer anew for each block, whose threads would otherwise
// seem to race with those of the block before.
void map_memory(unsigned num_threads) {
  const std::size_t each = kStackBytes + kGuardBytes;
#ifdef EMU_TSAN
  if (mapped != nullptr) {
    munmap(mapped, kSyncBytes + kSharedWindowBytes);
    munmap(stacks, stacks_bytes);
    mapped = nullptr;
  }
  const unsigned wanted = num_threads;
#else
  static_cast<void>(num_threads);
  const unsigned wanted = kMaxThreads;
#endif
  if (mapped != nullptr) return;
  mapped = static_cast<unsigned char*>(map_pages(kSyncBytes + kSharedWindowBytes));
  stacks_bytes = each * wanted;
  stacks = static_cast<unsigned char*>(map_pages(stacks_bytes));
  for (unsigned i = 0; i < wanted; ++i) mprotect(stacks + each * i, kGuardBytes, PROT_NONE);
}

// ---- Shared memory

// The next bytes of the window, filled with NaN bits, with a poisoned gap after them.
unsigned char* take_window(std::size_t bytes, std::size_t alignment) {
  const std::size_t step = alignment < 128 ? 128 : alignment;
  const std::size_t offset = (block.window_used + step - 1) / step * step;
  if (offset + bytes + kGapBytes > kSharedWindowBytes) fault("shared memory beyond the emulator's");
  block.window_used = offset + bytes + kGapBytes;
  unsigned char* const address = shared_window() + offset;
  unpoison(address, bytes);
  for (std::size_t i = 0; i < bytes; ++i) address[i] = 0xff;
  return address;
}

void start_block(uint3 index, dim3 grid_dim, dim3 block_dim) {
  map_memory(block.num_threads);
  poison(shared_window(), kSharedWindowBytes);
  block.num_exited = 0;
  block.num_arrived = 0;
  block.votes = 0;
  block.turn = 0;
  block.num_arrays = 0;
  block.static_bytes = 0;
  block.window_used = 1024;  // so that no shared address is 0
  for (unsigned warp = 0; warp < block.num_warps; ++warp) {
    for (Meeting& meeting : block.meetings[warp]) {
      meeting.mask = 0;
      meeting.turn = 0;
    }
  }
  block.dynamic = take_window(block.dynamic_bytes, 128);
  for (unsigned i = 0; i < block.num_threads; ++i) {
    Fiber& fiber = fibers[i];
    fiber.thread = {i % block_dim.x, i / block_dim.x % block_dim.y, i / block_dim.x / block_dim.y};
    fiber.block = index;
    fiber.block_dim = block_dim;
    fiber.grid_dim = grid_dim;
    fiber.linear = i;
    fiber.lane = i % kWarp;
    fiber.state = State::ready;
    fiber.num_copies = 0;
    fiber.committed_groups = 0;
    fiber.side.prepare(stacks + (kStackBytes + kGuardBytes) * i + kGuardBytes, kStackBytes,
                       &fiber_main);
#ifdef EMU_TSAN
    fiber.side.tsan = __tsan_create_fiber(0);
#endif
  }
}

// What each thread did happened before the end of the grid, also if it was left where it waited.
void end_block() {
#ifdef EMU_TSAN
  for (unsigned i = 0; i < block.num_threads; ++i) {
    __tsan_switch_to_fiber(fibers[i].side.tsan, 1);
    release(&grid_end);
    __tsan_switch_to_fiber(host.tsan, 1);
    __tsan_destroy_fiber(fibers[i].side.tsan);
  }
#endif
}

// ---- Order of threads

[[noreturn]] void deadlock() {
  std::string message = "deadlock: nobody can go on";
  unsigned shown = 0;
  for (unsigned i = 0; i < block.num_threads && shown < 8; ++i) {
    const Fiber& fiber = fibers[i];
    if (fiber.state == State::done) continue;
    message += "; " + name_of(fiber) +
               (fiber.state == State::at_block_barrier ? " waits at the barrier "
                                                       : " waits for its warp at ") +
               place(fiber.site);
    ++shown;
  }
  throw Fault(message);
}

// Runs what can run of the threads that `chosen` names; false if none could.
bool run_round(const unsigned* chosen, unsigned count) {
  bool any = false;
  for (unsigned i = 0; i < count && !faulted; ++i) {
    Fiber& fiber = fibers[chosen[i]];
    if (fiber.state != State::ready) continue;
    any = true;
    run_fiber(fiber);
  }
  return any;
}

bool run_warps_greedily() {
  shuffle_order(warp_order, block.num_warps);
  bool any = false;
  for (unsigned w = 0; w < block.num_warps; ++w) {
    const unsigned first = warp_order[w] * kWarp;
    const unsigned end = first + kWarp < block.num_threads ? first + kWarp : block.num_threads;
    unsigned lanes[kWarp];
    for (unsigned lane = 0; lane < end - first; ++lane) lanes[lane] = first + lane;
    shuffle_order(lanes, end - first);
    while (!faulted && run_round(lanes, end - first)) any = true;
  }
  return any;
}

void run_threads() {
  const Schedule schedule = options().schedule;
  for (unsigned i = 0; i < block.num_threads; ++i) {
    order[i] = schedule == Schedule::reverse ? block.num_threads - 1 - i : i;
  }
  for (unsigned w = 0; w < block.num_warps; ++w) warp_order[w] = w;
  while (block.num_exited < block.num_threads && !faulted) {
    if (schedule == Schedule::shuffled) shuffle_order(order, block.num_threads);
    const bool any =
        schedule == Schedule::greedy ? run_warps_greedily() : run_round(order, block.num_threads);
    if (!any && !faulted) deadlock();
  }
}

// The block that runs as number `turn` of `count` in the order chosen. An affine walk: `stride`
// has no divisor in common with count.
std::uint64_t block_at(std::uint64_t turn, std::uint64_t count, std::uint64_t start,
                       std::uint64_t stride) {
  switch (options().schedule) {
    case Schedule::in_order:
      return turn;
    case Schedule::reverse:
      return count - 1 - turn;
    default:
      return (start + turn * stride) % count;
  }
}

std::uint64_t common_divisor(std::uint64_t a, std::uint64_t b) {
  while (b != 0) {
    const std::uint64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

}  // namespace

Fiber& running() { return *static_cast<Fiber*>(current); }

std::string place(Site site) {
  const char* const slash = std::strrchr(site.file, '/');
  return std::string(slash != nullptr ? slash + 1 : site.file) + ":" + std::to_string(site.line);
}

std::string in_hex(std::uint32_t mask) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text = "0x";
  for (int shift = 28; shift >= 0; shift -= 4) text += kDigits[mask >> shift & 15U];
  return text;
}

void fault(const std::string& message) {
  if (current == nullptr) throw Fault(message);
  throw Fault(name_of(*current) + ": " + message);
}

void run_grid(dim3 grid, dim3 block_dim, std::size_t dynamic_smem, std::size_t shared_limit_bytes,
              const Body& thread_body) {
  if (current != nullptr) fault("a kernel launched from a kernel");
  body = &thread_body;
  block.block_dim = block_dim;
  block.num_threads = block_dim.x * block_dim.y * block_dim.z;
  block.num_warps = (block.num_threads + kWarp - 1) / kWarp;
  block.dynamic_bytes = dynamic_smem;
  block.limit_bytes = shared_limit_bytes;
  faulted = false;
  std::string text;
  fault_text = &text;
  random_state = options().seed;
#ifdef EMU_TSAN
  host.tsan = __tsan_get_current_fiber();
#endif
  const std::uint64_t num_blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  const std::uint64_t start = next_random() % num_blocks;
  std::uint64_t stride = next_random() % num_blocks;
  while (common_divisor(stride, num_blocks) != 1) ++stride;
  for (std::uint64_t turn = 0; turn < num_blocks; ++turn) {
    const std::uint64_t index = block_at(turn, num_blocks, start, stride);
    start_block(
        {static_cast<unsigned>(index % grid.x), static_cast<unsigned>(index / grid.x % grid.y),
         static_cast<unsigned>(index / grid.x / grid.y)},
        grid, block_dim);
    try {
      run_threads();
    } catch (const Fault& error) {
      faulted = true;
      text = error.what();
    }
    end_block();
    if (faulted) break;
  }
  acquire(&grid_end);
  if (faulted) throw Fault(text + " [" + name_of(options()) + "]");
}

// ---- Barriers

int block_vote(Site site, Vote vote, bool predicate) {
  Fiber& fiber = running();
  if (block.num_exited > 0) {
    fault("barrier " + place(site) + " after " + std::to_string(block.num_exited) +
          " threads of the block have exited");
  }
  if (block.num_arrived == 0) {
    block.site = site;
  } else if (block.site.id != site.id || block.site.line != site.line) {
    fault("divergent barrier: at " + place(site) + " while others wait at " + place(block.site));
  }
  void* const object = block_object(block.turn);
  release(object);
  block.votes += predicate ? 1 : 0;
  if (++block.num_arrived < block.num_threads) {
    fiber.state = State::at_block_barrier;
    fiber.site = site;
    leave();
  } else {
    const unsigned votes = block.votes;
    block.vote_result = vote == Vote::count ? static_cast<int>(votes)
                        : vote == Vote::any ? votes != 0
                                            : votes == block.num_threads;
    block.num_arrived = 0;
    block.votes = 0;
    ++block.turn;
    for (unsigned i = 0; i < block.num_threads; ++i) fibers[i].state = State::ready;
  }
  acquire(object);
  return block.vote_result;
}

void block_barrier(Site site) { block_vote(site, Vote::count, false); }

void meet(Site site, const char* operation, std::uint32_t mask, bool orders_memory, Finish finish) {
  Fiber& fiber = running();
  const unsigned warp = fiber.linear / kWarp;
  Fiber* const lanes = fibers + std::size_t{warp} * kWarp;
  const std::uint32_t self = std::uint32_t{1} << fiber.lane;
  if ((mask & self) == 0) {
    fault(std::string(operation) + " " + place(site) + ": lane " + std::to_string(fiber.lane) +
          " is not in its own mask " + in_hex(mask));
  }
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if ((mask >> lane & 1U) == 0) continue;
    if (warp * kWarp + lane >= block.num_threads || lanes[lane].state == State::done) {
      fault(std::string(operation) + " " + place(site) + ": mask " + in_hex(mask) + " names lane " +
            std::to_string(lane) + ", which has exited or never was");
    }
  }
  unsigned slot = kWarp;
  for (unsigned i = 0; i < kWarp; ++i) {
    Meeting& other = block.meetings[warp][i];
    if (other.mask == 0) {
      if (slot == kWarp) slot = i;
    } else if (other.mask == mask) {
      slot = i;
      break;
    } else if ((other.mask & mask) != 0) {
      fault(std::string(operation) + " " + place(site) + " with mask " + in_hex(mask) +
            " while lanes wait with the overlapping mask " + in_hex(other.mask) + " at " +
            other.operation + " " + place(other.site));
    }
  }
  Meeting& meeting = block.meetings[warp][slot];
  if (meeting.mask == 0) {
    meeting.mask = mask;
    meeting.arrived = 0;
    meeting.site = site;
    meeting.operation = operation;
    ++meeting.turn;
  } else if (meeting.site.line != site.line || meeting.site.id != site.id ||
             meeting.operation != operation) {
    fault(std::string("lanes of one mask at different places: ") + operation + " " + place(site) +
          " and " + meeting.operation + " " + place(meeting.site));
  }
  void* const object = warp_object(warp, slot, meeting.turn);
  if (orders_memory) release(object);
  meeting.arrived |= self;
  if (meeting.arrived != mask) {
    fiber.state = State::at_warp_operation;
    fiber.site = site;
    leave();
  } else {
    meeting.mask = 0;
    if (finish != nullptr) finish(lanes, mask);
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      if ((mask >> lane & 1U) != 0) lanes[lane].state = State::ready;
    }
  }
  if (orders_memory) acquire(object);
}

void warp_barrier(Site site, std::uint32_t mask) { meet(site, "__syncwarp", mask, true, nullptr); }

// ---- Shared memory

unsigned char* shared_window() { return mapped + kSyncBytes; }

void* shared_array(const void* key, std::size_t bytes, std::size_t alignment, const char* name) {
  for (unsigned i = 0; i < block.num_arrays; ++i) {
    if (block.arrays[i].key == key) return block.arrays[i].address;
  }
  if (block.num_arrays == kMaxArrays) fault("more shared arrays than the emulator has room for");
  block.static_bytes = (block.static_bytes + alignment - 1) / alignment * alignment + bytes;
  if (block.static_bytes > kStaticLimitBytes) {
    fault(std::string(name) + ": " + std::to_string(block.static_bytes) +
          " bytes of static shared memory, at most " + std::to_string(kStaticLimitBytes));
  }
  if (block.static_bytes + block.dynamic_bytes > block.limit_bytes) {
    fault(std::string(name) + ": " + std::to_string(block.static_bytes) + " bytes of static and " +
          std::to_string(block.dynamic_bytes) + " of dynamic shared memory, at most " +
          std::to_string(block.limit_bytes));
  }
  SharedArray& array = block.arrays[block.num_arrays++];
  array = {key, bytes, take_window(bytes, alignment)};
  return array.address;
}

void* dynamic_shared() { return block.dynamic; }
std::size_t dynamic_shared_bytes() { return block.dynamic_bytes; }

// ---- Sanitizers

void poison([[maybe_unused]] const void* address, [[maybe_unused]] std::size_t bytes) {
#ifdef EMU_ASAN
  __asan_poison_memory_region(address, bytes);
#endif
}
void unpoison([[maybe_unused]] const void* address, [[maybe_unused]] std::size_t bytes) {
#ifdef EMU_ASAN
  __asan_unpoison_memory_region(address, bytes);
#endif
}

}  // namespace emu
