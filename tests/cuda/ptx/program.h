// A kernel decoded for execution: one Op per PTX instruction (a few for the rare ones that combine
// several steps), operands as numbers of 64-bit slots. Registers, immediates, special registers and
// addresses of variables all are slots, so an operation never asks what kind its operand is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "source.h"

namespace terse::ptx {

struct Op;
struct Program;
class ModuleMemory;

// Addresses [begin, end).
struct Region {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  bool contains(std::uint64_t address, std::size_t bytes) const {
    return address >= begin && address <= end && bytes <= end - address;
  }
};

// What interpreted threads did.
struct Work {
  std::uint64_t instructions = 0;
  std::uint64_t global_bytes = 0;  // asked for by loads, stores and asynchronous copies
  std::uint64_t flops = 0;  // of f32 and f64 sums, products (1), multiply-adds (2), mma (4096)
};

// A thread while it runs.
struct Thread {
  std::uint64_t* slots = nullptr;
  const Op* next = nullptr;  // null: the thread has ended
  const Program* program = nullptr;
  const ModuleMemory* memory = nullptr;
  std::vector<Region> shared;  // of the block: static variables, the dynamic part
  Region parameters;
  Region local;
  Region last_global;  // the device allocation that was touched last
  Work work;
};

struct Op {
  void (*run)(Thread&, const Op&) = nullptr;
  std::uint32_t d = 0;  // slots: destination and sources
  std::uint32_t a = 0;
  std::uint32_t b = 0;
  std::uint32_t c = 0;
  std::uint32_t guard = 0;  // slot of a predicate
  std::uint32_t list = 0;   // first of further slots in Program::lists
  std::uint32_t flags = 0;  // modifiers, by family
  bool guard_negated = false;
  int line = 0;
  std::int64_t offset = 0;  // added to an address; a branch's target
};

// A slot whose value is known only when a launch, a block or a thread starts.
struct SlotSource {
  enum class Kind : std::uint8_t {
    parameter,       // address of byte `value` of the parameters
    shared,          // shared address of variable `value`
    dynamic_shared,  // shared address of the launch's dynamic part
    local,           // address of byte `value` of the thread's local memory
    thread_index,    // component `value`, and so on
    block_index,
    block_size,
    grid_size,
    lane,
    warp,
    dynamic_shared_bytes,
  };
  Kind kind = Kind::parameter;
  std::uint32_t slot = 0;
  std::uint64_t value = 0;
};

// Slot 0 holds the predicate true, slot 1 swallows results sent to `_`.
inline constexpr std::uint32_t kTrueSlot = 0;
inline constexpr std::uint32_t kSinkSlot = 1;

struct Program {
  std::string name;
  std::vector<Op> ops;
  std::vector<std::uint32_t> lists;
  std::vector<std::uint64_t> slots;  // what each thread starts with; registers hold kUnset
  std::vector<SlotSource> sources;
  std::vector<std::size_t> parameter_offsets;
  std::vector<std::size_t> parameter_bytes;
  std::size_t parameters_bytes = 0;
  std::vector<Variable> shared;  // static ones
  std::size_t local_bytes = 0;
};

// What a register holds before it is written: a NaN in every floating-point type.
inline constexpr std::uint64_t kUnset = 0xffffffffffffffff;

// Variables of the module that live in global or constant memory.
class ModuleMemory {
 public:
  explicit ModuleMemory(const Source& source);

  // The address of a variable, or 0.
  std::uint64_t find(const std::string& name) const;
  bool contains(std::uint64_t address, std::size_t bytes) const;

 private:
  std::vector<std::unique_ptr<std::byte[]>> buffers_;
  std::map<std::string, Region> regions_;
};

// Decodes one kernel. Throws Error `unsupported` for an opcode, modifier, type or operand that has
// no interpretation here; nothing is ever skipped.
Program decode(const Entry& entry, const Source& source, const ModuleMemory& memory);

// Runs one thread of the launch in whose fiber it is called, from the kernel's start to its end.
// The parameters are packed as parameter_offsets say.
void run_thread(const Program& program, const ModuleMemory& memory,
                const std::vector<std::byte>& parameters);

// The work of all threads since the program started.
const Work& work_done();

// Opcodes with their modifiers, and how often each stands in the text: "fma.rn.f32" -> 12.
std::map<std::string, std::size_t> count_opcodes(const Source& source);

}  // namespace terse::ptx
