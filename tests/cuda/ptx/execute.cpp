// Runs one thread of a decoded kernel.
#include <cstdint>

#include "../emu/emu.h"
#include "decoder.h"

namespace terse::ptx {
namespace {

// Emulated devices take turns, and so do the threads of one.
Work total;

std::uint64_t component(const uint3& value, std::uint64_t axis) {
  return axis == 0 ? value.x : axis == 1 ? value.y : value.z;
}
std::uint64_t component(const dim3& value, std::uint64_t axis) {
  return axis == 0 ? value.x : axis == 1 ? value.y : value.z;
}

// The block's shared variables, in shared addresses; the last region is the dynamic part. The
// emulation gives each thread of a block the same memory for the same key.
std::vector<Region> shared_regions(const Program& program) {
  const auto window = reinterpret_cast<std::uint64_t>(emu::shared_window());
  std::vector<Region> regions;
  for (const Variable& variable : program.shared) {
    const auto begin = reinterpret_cast<std::uint64_t>(emu::shared_array(
                           &variable, variable.bytes, variable.align, variable.name.c_str())) -
                       window;
    regions.push_back({begin, begin + variable.bytes});
  }
  const auto dynamic = reinterpret_cast<std::uint64_t>(emu::dynamic_shared()) - window;
  regions.push_back({dynamic, dynamic + emu::dynamic_shared_bytes()});
  return regions;
}

std::uint64_t value_of(const SlotSource& source, const Thread& thread) {
  using Kind = SlotSource::Kind;
  const emu::Thread& self = *emu::current;
  switch (source.kind) {
    case Kind::parameter:
      return thread.parameters.begin + source.value;
    case Kind::shared:
      return thread.shared[source.value].begin;
    case Kind::dynamic_shared:
      return thread.shared.back().begin;
    case Kind::local:
      return thread.local.begin + source.value;
    case Kind::thread_index:
      return component(self.thread, source.value);
    case Kind::block_index:
      return component(self.block, source.value);
    case Kind::block_size:
      return component(self.block_dim, source.value);
    case Kind::grid_size:
      return component(self.grid_dim, source.value);
    case Kind::lane:
      return self.lane;
    case Kind::warp:
      return self.linear / 32;
    case Kind::dynamic_shared_bytes:
      return emu::dynamic_shared_bytes();
  }
  return 0;
}

Region region_of(const std::vector<std::byte>& bytes) {
  const auto begin = reinterpret_cast<std::uint64_t>(bytes.data());
  return {begin, begin + bytes.size()};
}

}  // namespace

void run_thread(const Program& program, const ModuleMemory& memory,
                const std::vector<std::byte>& parameters) {
  std::vector<std::uint64_t> slots = program.slots;
  std::vector<std::byte> local(program.local_bytes, std::byte{0xff});
  Thread thread;
  thread.slots = slots.data();
  thread.program = &program;
  thread.memory = &memory;
  thread.shared = shared_regions(program);
  thread.parameters = region_of(parameters);
  thread.local = region_of(local);
  for (const SlotSource& source : program.sources) slots[source.slot] = value_of(source, thread);
  thread.next = program.ops.data();
  while (thread.next != nullptr) {
    ++thread.work.instructions;
    const Op& op = *thread.next++;
    if (get_predicate(thread, op.guard) != op.guard_negated) op.run(thread, op);
  }
  total.instructions += thread.work.instructions;
  total.global_bytes += thread.work.global_bytes;
  total.flops += thread.work.flops;
}

const Work& work_done() { return total; }

}  // namespace terse::ptx
