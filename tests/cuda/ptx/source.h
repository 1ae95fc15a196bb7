// PTX text as a tree: what nvcc wrote, taken apart but not yet understood. Types, opcodes and
// modifiers stay text here; program.h gives them meaning. Anything this reader does not know is an
// Error of class `unsupported` that names the line.
//
// Source: NVIDIA, "Parallel Thread Execution ISA", sections 4 (syntax) and 5 (state spaces, types).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace terse::ptx {

// One operand of an instruction.
struct Operand {
  enum class Kind : std::uint8_t {
    name,     // a register, special register, variable or label
    integer,  // 42, -1, 0x10: in `bits`, two's complement
    real,     // 0f3F800000 or 0d...: its bits, of 4 or 8 bytes
    list,     // {%r1, %r2}: in `parts`
    pair,     // %r1|%p2: in `parts`
    address,  // [%rd1+16], [name+4], [64]: parts[0] is the base, `bits` what is added
  };
  Kind kind = Kind::name;
  bool negated = false;  // !%p1
  std::string name;
  std::uint64_t bits = 0;
  std::vector<Operand> parts;
};

// `@!%p1 ld.global.v2.f32 {%f1, %f2}, [%rd1];`
struct Instruction {
  int line = 0;
  std::string guard;  // name of a predicate register, or empty
  bool guard_negated = false;
  std::string opcode;                  // ld
  std::vector<std::string> modifiers;  // global, v2, f32
  std::vector<Operand> operands;
};

// A variable of space shared, local, global, const or param.
struct Variable {
  std::string space;
  std::string name;
  std::size_t align = 1;
  std::size_t bytes = 0;              // 0: an extern array, sized by the launch
  std::vector<std::uint8_t> initial;  // as many bytes as given; the rest is zero
};

struct Entry {
  std::string name;
  std::vector<Variable> parameters;
  std::vector<Variable> variables;               // shared and local ones declared inside
  std::map<std::string, std::string> registers;  // name -> type without its dot
  std::vector<Instruction> body;
  std::map<std::string, std::size_t> labels;                       // -> index into body
  std::map<std::string, std::vector<std::string>> branch_targets;  // of brx.idx
};

struct Source {
  std::vector<Entry> entries;
  std::vector<Variable> variables;  // of the module
};

// Reads a whole PTX file. Throws Error `unsupported`, with the line, for any directive that is not
// in the subset nvcc emits for kernels without calls.
Source parse(std::string_view text);

// Bytes of a fundamental type: "u16" 2, "f64" 8, "pred" 1. Throws for an unknown one.
std::size_t type_bytes(std::string_view type, int line);

// Throws Error `unsupported`: "PTX line 12: ...".
[[noreturn]] void refuse(int line, const std::string& what);

}  // namespace terse::ptx
