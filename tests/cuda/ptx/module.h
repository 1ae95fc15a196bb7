// A PTX file that can run in place of the kernels compiled by the host compiler: while a Module is
// installed, each launch of the emulation interprets the entry whose mangled name is the kernel's.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "../emu/emu.h"
#include "program.h"

namespace terse::ptx {

class Module {
 public:
  // Reads and decodes every kernel of a PTX text; see parse and decode for what is refused.
  explicit Module(std::string_view text);
  // The same of a file. Throws Error `io` if it cannot be read.
  static Module from_file(const std::string& path);

  // From now on launches run here; the module must live until uninstall.
  void install() const;
  static void uninstall();

  // The body of one launch. Faults if there is no such entry, or if the arguments' number or sizes
  // are not those of the entry: the compilers then disagree about a type.
  emu::Body body(const emu::Launch& launch) const;

  // Kernels by mangled name.
  const std::map<std::string, Program>& programs() const { return programs_; }
  // Mangled names of the kernels that launches have asked for.
  const std::set<std::string>& launched() const { return launched_; }
  // How often each opcode, with its modifiers, stands in the text.
  const std::map<std::string, std::size_t>& opcodes() const { return opcodes_; }

 private:
  explicit Module(const Source& source);

  mutable std::set<std::string> launched_;
  ModuleMemory memory_;
  std::map<std::string, Program> programs_;
  std::map<std::string, std::size_t> opcodes_;
};

}  // namespace terse::ptx
