#include "module.h"

#include <malloc.h>

#include <cstring>
#include <fstream>
#include <iterator>

#include "terse/error.h"

namespace terse::ptx {

namespace {

// The threads of a block take and return megabytes of registers at a time: to hand them back to the
// system each time would cost more than the interpretation.
void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  mallopt(M_TOP_PAD, 32 << 20);
  mallopt(M_MMAP_THRESHOLD, 64 << 20);
#endif
}

}  // namespace

Module::Module(std::string_view text) : Module(parse(text)) {}

Module::Module(const Source& source) : memory_(source), opcodes_(count_opcodes(source)) {
  keep_freed_memory();
  for (const Entry& entry : source.entries) {
    programs_.emplace(entry.name, decode(entry, source, memory_));
  }
}

Module Module::from_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  check(file.is_open(), ErrorClass::io, "cannot open ", quote(path));
  return Module(
      std::string{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()});
}

void Module::install() const {
  emu::set_body_provider([this](const emu::Launch& launch) { return body(launch); });
}

void Module::uninstall() { emu::set_body_provider(nullptr); }

emu::Body Module::body(const emu::Launch& launch) const {
  const auto found = programs_.find(launch.name);
  if (found == programs_.end()) emu::fault("no entry of the PTX is named " + launch.name);
  const Program& program = found->second;
  launched_.insert(launch.name);
  if (launch.params.size() != program.parameter_bytes.size()) {
    emu::fault(launch.name + ": number of parameters differs from the PTX");
  }
  std::vector<std::byte> parameters(program.parameters_bytes);
  for (std::size_t index = 0; index < launch.params.size(); ++index) {
    const emu::Param& param = launch.params[index];
    if (param.size != program.parameter_bytes[index]) {
      emu::fault(launch.name + ": size of parameter " + std::to_string(index) +
                 " differs from the PTX");
    }
    std::memcpy(parameters.data() + program.parameter_offsets[index], param.data, param.size);
  }
  return [this, &program, parameters = std::move(parameters)] {
    run_thread(program, memory_, parameters);
  };
}

}  // namespace terse::ptx
