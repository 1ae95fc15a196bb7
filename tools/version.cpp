// terse version: what this program is and what it finds on this machine.
#include <algorithm>
#include <string>

#include "commands.h"
#include "compiler_name.h"
#include "terse/cpu.h"
#include "terse/error.h"
#include "terse/parallel.h"
#ifdef TERSE_WITH_CUDA
#include "terse/ops/cuda.h"
#endif

namespace terse_tools {

namespace {

class VersionCommand {
 public:
  void add_options(CLI::App& app) { app.add_flag("--json", json_, "Print one JSON object"); }

  int run() {
    Record record;
    record.add_text("version", TERSE_VERSION)
        .add_text("compiler", compiler_name())
        .add_text("cpu", terse::cpu_name())
        .add("isa_found", available_isas())
        .add_text("isa_used", terse::isa_name(terse::best_isa()))
        .add("cuda", cuda())
        .add_integer("threads", terse::thread_count(0));
    Output output("");
    if (json_) {
      output.write(record.json() + "\n");
    } else {
      for (const auto& [name, value] : record.members()) {
        output.write(pad(name, 10, false) + "  " + plain_value(value) + "\n");
      }
    }
    output.finish();
    return kSuccess;
  }

 private:
  // What there is of CUDA: in this program, of the driver, and the devices.
  static std::string cuda() {
    Record record;
#ifdef TERSE_WITH_CUDA
    const terse::cuda::Versions versions = terse::cuda::versions();
    record.add_boolean("built", true)
        .add_integer("runtime", versions.runtime)
        .add_integer("driver", versions.driver);
    std::string names;
    try {
      for (const terse::cuda::DeviceProperties& device : terse::cuda::find_devices()) {
        names += (names.empty() ? "" : ", ") + json_string(device.name);
      }
    } catch (const terse::Error& error) {
      record.add_text("error", error.what());
    }
    record.add("devices", "[" + names + "]");
#else
    record.add_boolean("built", false);
#endif
    return record.json();
  }

  static std::string available_isas() {
    std::string names;
    for (const terse::Isa isa :
         {terse::Isa::reference, terse::Isa::avx2, terse::Isa::avx512, terse::Isa::amx}) {
      if (!terse::isa_available(isa)) continue;
      names += (names.empty() ? "" : ", ") + json_string(terse::isa_name(isa));
    }
    return "[" + names + "]";
  }

  bool json_ = false;
};

}  // namespace

void add_version_command(CLI::App& app, Action& action) {
  add_command<VersionCommand>(app, action, "version",
                              "Print version, compiler, instruction sets and threads");
}

}  // namespace terse_tools
