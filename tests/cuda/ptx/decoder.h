// One instruction being decoded: its modifiers are taken in order and all must be taken; its
// operands become slots. Each family of instructions is a function that tries its opcodes.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "program.h"

namespace terse::ptx {

// Slots of one kernel while it is decoded.
class Slots {
 public:
  Slots(const Entry& entry, const Source& source, const ModuleMemory& memory, Program& program);

  // The slot of a register, special register or variable; throws for anything else.
  std::uint32_t named(const std::string& name, int line);
  std::uint32_t constant(std::uint64_t value);
  std::uint32_t temporary();
  // Whether the name is a register of this kernel.
  bool is_register(const std::string& name) const { return registers_.contains(name); }

 private:
  std::uint32_t add(std::uint64_t value);
  std::uint32_t special(const std::string& name);
  void add_variable(const std::string& name, SlotSource::Kind kind, std::uint64_t value);

  Program& program_;
  const ModuleMemory& memory_;
  std::map<std::string, std::uint32_t> registers_;
  std::map<std::string, std::uint32_t> named_;
  std::map<std::uint64_t, std::uint32_t> constants_;
};

class Decoder {
 public:
  Decoder(const Instruction& instruction, Slots& slots, Program& program)
      : instruction_(instruction), slots_(slots), program_(program) {}

  const std::string& opcode() const { return instruction_.opcode; }
  // The last modifier, which is the type in most instructions; empty if there is none.
  std::string_view type() const {
    return instruction_.modifiers.empty() ? std::string_view() : instruction_.modifiers.back();
  }
  int line() const { return instruction_.line; }

  // The modifier that comes next; empty if all are taken.
  std::string_view next() const {
    return next_modifier_ == instruction_.modifiers.size() ? std::string_view()
                                                           : instruction_.modifiers[next_modifier_];
  }
  // Takes the next modifier if it is this one.
  bool take(std::string_view modifier);
  // Takes the next modifier, which must be one of these, and returns its place among them.
  std::size_t take_one_of(std::initializer_list<std::string_view> modifiers);
  std::string take_any();
  void require(std::string_view modifier);
  // Throws unless every modifier was taken and there are this many operands.
  void finish(std::size_t num_operands) const;

  std::size_t num_operands() const { return instruction_.operands.size(); }
  const Operand& operand(std::size_t index) const;
  // The slot of a source operand: a register, an immediate, an address of a variable. A negated
  // predicate is computed into a temporary by an op of its own.
  std::uint32_t source(const Operand& operand);
  std::uint32_t source(std::size_t index) { return source(operand(index)); }
  // The slot of a register that is written, or the sink for `_`.
  std::uint32_t destination(const Operand& operand);
  std::uint32_t destination(std::size_t index) { return destination(operand(index)); }
  // The value of an immediate operand.
  std::uint64_t immediate(std::size_t index) const;
  std::uint32_t temporary() { return slots_.temporary(); }
  std::uint32_t constant(std::uint64_t value) { return slots_.constant(value); }
  // Sets the base slot and the offset of an address operand.
  void address(std::size_t index, std::uint32_t& base, std::int64_t& offset);
  // Appends the slots of {a, b, ...} (or of one operand) to the program's lists.
  std::uint32_t list(const Operand& operand, std::size_t count, bool destination);

  void emit(Op op);
  [[noreturn]] void unknown() const;
  [[noreturn]] void refuse_here(const std::string& what) const { refuse(line(), what); }

 private:
  const Instruction& instruction_;
  Slots& slots_;
  Program& program_;
  std::size_t next_modifier_ = 0;
};

// Each returns false if the opcode is not of its family.
bool decode_integer(Decoder& decoder);
bool decode_real(Decoder& decoder);
bool decode_convert(Decoder& decoder);
bool decode_compare(Decoder& decoder);
bool decode_memory(Decoder& decoder);
bool decode_warp(Decoder& decoder);

// --- slots as values -----------------------------------------------------------------------------

// A slot's low bytes as a T. Narrow signed values are kept sign-extended, all others zero-extended.
template <class T>
T get(const Thread& thread, std::uint32_t slot) {
  const std::uint64_t bits = thread.slots[slot];
  if constexpr (sizeof(T) == 8) {
    return __builtin_bit_cast(T, bits);
  } else if constexpr (sizeof(T) == 4) {
    return __builtin_bit_cast(T, static_cast<std::uint32_t>(bits));
  } else if constexpr (sizeof(T) == 2) {
    return __builtin_bit_cast(T, static_cast<std::uint16_t>(bits));
  } else {
    return __builtin_bit_cast(T, static_cast<std::uint8_t>(bits));
  }
}

template <class T>
void put(Thread& thread, std::uint32_t slot, T value) {
  if constexpr (sizeof(T) == 8) {
    thread.slots[slot] = __builtin_bit_cast(std::uint64_t, value);
  } else if constexpr (sizeof(T) == 4) {
    thread.slots[slot] = __builtin_bit_cast(std::uint32_t, value);
  } else if constexpr (std::is_signed_v<T>) {
    thread.slots[slot] = static_cast<std::uint64_t>(static_cast<std::int64_t>(value));
  } else {
    thread.slots[slot] = value;
  }
}

inline bool get_predicate(const Thread& thread, std::uint32_t slot) {
  return (thread.slots[slot] & 1) != 0;
}

// Calls action.template operator()<T>() with the integer type of a name such as "s32" or "b64";
// false if it is no integer type of 16 to 64 bits.
template <class Action>
bool with_integer(std::string_view type, Action&& action) {
  if (type == "u32" || type == "b32") return action.template operator()<std::uint32_t>(), true;
  if (type == "s32") return action.template operator()<std::int32_t>(), true;
  if (type == "u64" || type == "b64") return action.template operator()<std::uint64_t>(), true;
  if (type == "s64") return action.template operator()<std::int64_t>(), true;
  if (type == "u16" || type == "b16") return action.template operator()<std::uint16_t>(), true;
  if (type == "s16") return action.template operator()<std::int16_t>(), true;
  return false;
}

}  // namespace terse::ptx
