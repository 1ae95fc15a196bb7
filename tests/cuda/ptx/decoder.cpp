#include "decoder.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "../emu/emu.h"
#include "terse/error.h"

namespace terse::ptx {
namespace {

std::size_t align_up(std::size_t value, std::size_t align) {
  return (value + align - 1) / align * align;
}

// --- control flow --------------------------------------------------------------------------------

void run_branch(Thread& thread, const Op& op) {
  thread.next = thread.program->ops.data() + op.offset;
}
void run_exit(Thread& thread, const Op&) { thread.next = nullptr; }
void run_trap(Thread&, const Op& op) { emu::fault("trap at PTX line " + std::to_string(op.line)); }
void run_indexed_branch(Thread& thread, const Op& op) {
  const auto index = get<std::uint32_t>(thread, op.a);
  if (index >= op.flags) emu::fault("brx.idx: index beyond its targets");
  thread.next = thread.program->ops.data() + thread.program->lists[op.list + index];
}
void run_copy(Thread& thread, const Op& op) { thread.slots[op.d] = thread.slots[op.a]; }
void run_not(Thread& thread, const Op& op) { thread.slots[op.d] = (thread.slots[op.a] & 1) ^ 1; }

// Branches are decoded with the index of an instruction and fixed up to that of its first op.
bool decode_control(Decoder& decoder, const Entry& entry, Program& program) {
  const auto target = [&](const std::string& name) {
    const auto found = entry.labels.find(name);
    if (found == entry.labels.end()) decoder.refuse_here("unknown label " + quote(name));
    return found->second;
  };
  Op op;
  if (decoder.opcode() == "bra") {
    decoder.take("uni");
    decoder.finish(1);
    op.run = run_branch;
    op.offset = static_cast<std::int64_t>(target(decoder.operand(0).name));
  } else if (decoder.opcode() == "brx") {
    decoder.require("idx");
    decoder.take("uni");
    decoder.finish(2);
    const auto targets = entry.branch_targets.find(decoder.operand(1).name);
    if (targets == entry.branch_targets.end()) decoder.refuse_here("unknown branch targets");
    op.run = run_indexed_branch;
    op.a = decoder.source(0);
    op.list = static_cast<std::uint32_t>(program.lists.size());
    op.flags = static_cast<std::uint32_t>(targets->second.size());
    for (const std::string& name : targets->second) {
      program.lists.push_back(static_cast<std::uint32_t>(target(name)));
    }
  } else if (decoder.opcode() == "ret" || decoder.opcode() == "exit") {
    decoder.take("uni");
    decoder.finish(0);
    op.run = run_exit;
  } else if (decoder.opcode() == "trap") {
    decoder.finish(0);
    op.run = run_trap;
  } else {
    return false;
  }
  decoder.emit(op);
  return true;
}

void fix_branches(Program& program, const std::vector<std::size_t>& first_ops) {
  for (Op& op : program.ops) {
    if (op.run == run_branch) {
      op.offset = static_cast<std::int64_t>(first_ops[static_cast<std::size_t>(op.offset)]);
    } else if (op.run == run_indexed_branch) {
      for (std::uint32_t index = 0; index < op.flags; ++index) {
        std::uint32_t& target = program.lists[op.list + index];
        target = static_cast<std::uint32_t>(first_ops[target]);
      }
    }
  }
}

// A guard that one of the instruction's own first ops may overwrite is kept in a temporary.
void guard_ops(const Instruction& instruction, Slots& slots, Program& program, std::size_t first) {
  if (instruction.guard.empty()) return;
  std::uint32_t guard = slots.named(instruction.guard, instruction.line);
  if (program.ops.size() > first + 1) {
    Op keep;
    keep.run = run_copy;
    keep.a = guard;
    keep.d = guard = slots.temporary();
    keep.line = instruction.line;
    program.ops.insert(program.ops.begin() + static_cast<std::ptrdiff_t>(first), keep);
    ++first;
  }
  for (std::size_t index = first; index < program.ops.size(); ++index) {
    program.ops[index].guard = guard;
    program.ops[index].guard_negated = instruction.guard_negated;
  }
}

void lay_out_parameters(const Entry& entry, Program& program) {
  for (const Variable& parameter : entry.parameters) {
    program.parameters_bytes = align_up(program.parameters_bytes, parameter.align);
    program.parameter_offsets.push_back(program.parameters_bytes);
    program.parameter_bytes.push_back(parameter.bytes);
    program.parameters_bytes += parameter.bytes;
  }
}

}  // namespace

// --- slots ---------------------------------------------------------------------------------------

Slots::Slots(const Entry& entry, const Source& source, const ModuleMemory& memory, Program& program)
    : program_(program), memory_(memory) {
  add(1);  // kTrueSlot
  add(0);  // kSinkSlot
  for (const auto& [name, type] : entry.registers) registers_[name] = add(kUnset);
  lay_out_parameters(entry, program);
  for (std::size_t index = 0; index < entry.parameters.size(); ++index) {
    add_variable(entry.parameters[index].name, SlotSource::Kind::parameter,
                 program.parameter_offsets[index]);
  }
  std::vector<const Variable*> variables;
  for (const Variable& variable : source.variables) variables.push_back(&variable);
  for (const Variable& variable : entry.variables) variables.push_back(&variable);
  for (const Variable* variable : variables) {
    if (variable->space == "shared" && variable->bytes == 0) {
      add_variable(variable->name, SlotSource::Kind::dynamic_shared, 0);
    } else if (variable->space == "shared") {
      add_variable(variable->name, SlotSource::Kind::shared, program.shared.size());
      program.shared.push_back(*variable);
    } else if (variable->space == "local") {
      const std::size_t begin = align_up(program.local_bytes, variable->align);
      add_variable(variable->name, SlotSource::Kind::local, begin);
      program.local_bytes = begin + variable->bytes;
    }
  }
}

std::uint32_t Slots::add(std::uint64_t value) {
  program_.slots.push_back(value);
  return static_cast<std::uint32_t>(program_.slots.size() - 1);
}

void Slots::add_variable(const std::string& name, SlotSource::Kind kind, std::uint64_t value) {
  named_[name] = add(0);
  program_.sources.push_back({kind, named_[name], value});
}

std::uint32_t Slots::temporary() { return add(kUnset); }

std::uint32_t Slots::constant(std::uint64_t value) {
  const auto [place, is_new] = constants_.try_emplace(value, 0);
  if (is_new) place->second = add(value);
  return place->second;
}

std::uint32_t Slots::special(const std::string& name) {
  using Kind = SlotSource::Kind;
  static const std::map<std::string_view, Kind> kVectors = {{"%tid.", Kind::thread_index},
                                                            {"%ctaid.", Kind::block_index},
                                                            {"%ntid.", Kind::block_size},
                                                            {"%nctaid.", Kind::grid_size}};
  static const std::map<std::string_view, Kind> kScalars = {
      {"%laneid", Kind::lane},
      {"%warpid", Kind::warp},
      {"%dynamic_smem_size", Kind::dynamic_shared_bytes}};
  if (const auto scalar = kScalars.find(name); scalar != kScalars.end()) {
    add_variable(name, scalar->second, 0);
    return named_[name];
  }
  if (!name.empty() && name.back() >= 'x' && name.back() <= 'z') {
    const auto vector = kVectors.find(std::string_view(name).substr(0, name.size() - 1));
    if (vector != kVectors.end()) {
      add_variable(name, vector->second, static_cast<std::uint64_t>(name.back() - 'x'));
      return named_[name];
    }
  }
  if (name == "WARP_SZ") return constant(32);
  return 0;
}

std::uint32_t Slots::named(const std::string& name, int line) {
  if (const auto found = registers_.find(name); found != registers_.end()) return found->second;
  if (const auto found = named_.find(name); found != named_.end()) return found->second;
  if (const std::uint32_t slot = special(name); slot != 0) return slot;
  if (const std::uint64_t address = memory_.find(name); address != 0) return constant(address);
  refuse(line, "unknown name " + quote(name));
}

// --- one instruction -----------------------------------------------------------------------------

bool Decoder::take(std::string_view modifier) {
  if (next_modifier_ == instruction_.modifiers.size() ||
      instruction_.modifiers[next_modifier_] != modifier) {
    return false;
  }
  ++next_modifier_;
  return true;
}

std::size_t Decoder::take_one_of(std::initializer_list<std::string_view> modifiers) {
  std::size_t place = 0;
  for (const std::string_view modifier : modifiers) {
    if (take(modifier)) return place;
    ++place;
  }
  unknown();
}

std::string Decoder::take_any() {
  if (next_modifier_ == instruction_.modifiers.size()) unknown();
  return instruction_.modifiers[next_modifier_++];
}

void Decoder::require(std::string_view modifier) {
  if (!take(modifier)) unknown();
}

void Decoder::finish(std::size_t num_operands) const {
  if (next_modifier_ != instruction_.modifiers.size()) unknown();
  if (instruction_.operands.size() != num_operands) refuse_here("wrong number of operands");
}

void Decoder::unknown() const {
  std::string text = instruction_.opcode;
  for (const std::string& modifier : instruction_.modifiers) text += "." + modifier;
  refuse_here("unknown instruction " + quote(text));
}

const Operand& Decoder::operand(std::size_t index) const {
  if (index >= instruction_.operands.size()) refuse_here("too few operands");
  return instruction_.operands[index];
}

std::uint32_t Decoder::source(const Operand& operand) {
  switch (operand.kind) {
    case Operand::Kind::integer:
    case Operand::Kind::real:
      return slots_.constant(operand.bits);
    case Operand::Kind::name:
      break;
    default:
      refuse_here("unexpected kind of operand");
  }
  const std::uint32_t slot = slots_.named(operand.name, line());
  if (!operand.negated) return slot;
  Op op;
  op.run = run_not;
  op.a = slot;
  op.d = temporary();
  emit(op);
  return op.d;
}

std::uint32_t Decoder::destination(const Operand& operand) {
  if (operand.kind == Operand::Kind::name && operand.name == "_") return kSinkSlot;
  if (operand.kind != Operand::Kind::name || !slots_.is_register(operand.name)) {
    refuse_here("destination is no register");
  }
  return slots_.named(operand.name, line());
}

std::uint64_t Decoder::immediate(std::size_t index) const {
  if (operand(index).kind != Operand::Kind::integer) refuse_here("expected an immediate");
  return operand(index).bits;
}

void Decoder::address(std::size_t index, std::uint32_t& base, std::int64_t& offset) {
  const Operand& address = operand(index);
  if (address.kind != Operand::Kind::address) refuse_here("expected an address");
  base = source(address.parts[0]);
  offset = static_cast<std::int64_t>(address.bits);
}

std::uint32_t Decoder::list(const Operand& operand, std::size_t count, bool destination) {
  const auto slot = [&](const Operand& part) {
    return destination ? this->destination(part) : source(part);
  };
  std::vector<std::uint32_t> slots;
  if (operand.kind == Operand::Kind::list) {
    for (const Operand& part : operand.parts) slots.push_back(slot(part));
  } else {
    slots.push_back(slot(operand));
  }
  if (slots.size() != count) refuse_here("wrong number of elements");
  const auto first = static_cast<std::uint32_t>(program_.lists.size());
  program_.lists.insert(program_.lists.end(), slots.begin(), slots.end());
  return first;
}

void Decoder::emit(Op op) {
  op.line = line();
  program_.ops.push_back(op);
}

// --- a kernel ------------------------------------------------------------------------------------

Program decode(const Entry& entry, const Source& source, const ModuleMemory& memory) {
  Program program;
  program.name = entry.name;
  Slots slots(entry, source, memory, program);
  std::vector<std::size_t> first_ops;
  for (const Instruction& instruction : entry.body) {
    first_ops.push_back(program.ops.size());
    Decoder decoder(instruction, slots, program);
    if (!decode_control(decoder, entry, program) && !decode_integer(decoder) &&
        !decode_real(decoder) && !decode_convert(decoder) && !decode_compare(decoder) &&
        !decode_memory(decoder) && !decode_warp(decoder)) {
      decoder.unknown();
    }
    guard_ops(instruction, slots, program, first_ops.back());
  }
  // A kernel that runs off its end has ended.
  first_ops.push_back(program.ops.size());
  Op end;
  end.run = run_exit;
  program.ops.push_back(end);
  fix_branches(program, first_ops);
  return program;
}

std::map<std::string, std::size_t> count_opcodes(const Source& source) {
  std::map<std::string, std::size_t> counts;
  for (const Entry& entry : source.entries) {
    for (const Instruction& instruction : entry.body) {
      std::string name = instruction.opcode;
      for (const std::string& modifier : instruction.modifiers) name += "." + modifier;
      ++counts[name];
    }
  }
  return counts;
}

// --- variables of the module ---------------------------------------------------------------------

ModuleMemory::ModuleMemory(const Source& source) {
  for (const Variable& variable : source.variables) {
    if (variable.space != "global" && variable.space != "const") continue;
    const std::size_t room = variable.bytes + variable.align;
    buffers_.push_back(std::make_unique<std::byte[]>(room));
    const auto start = reinterpret_cast<std::uint64_t>(buffers_.back().get());
    const std::uint64_t begin = align_up(start, variable.align);
    std::memcpy(reinterpret_cast<void*>(begin), variable.initial.data(), variable.initial.size());
    regions_[variable.name] = {begin, begin + variable.bytes};
  }
}

std::uint64_t ModuleMemory::find(const std::string& name) const {
  const auto found = regions_.find(name);
  return found == regions_.end() ? 0 : found->second.begin;
}

bool ModuleMemory::contains(std::uint64_t address, std::size_t bytes) const {
  return std::any_of(regions_.begin(), regions_.end(), [&](const auto& region) {
    return address >= region.second.begin && address + bytes <= region.second.end;
  });
}

}  // namespace terse::ptx
